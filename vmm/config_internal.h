/*
 * The part of config_parse() that knows devices: one function for each option that adds one, and
 * what is done when all are there. Only config.c calls these. -1 with a sentence.
 */
#ifndef GODWIT_CONFIG_INTERNAL_H
#define GODWIT_CONFIG_INTERNAL_H

struct config;
struct err;

/* run: PATH[,readonly][,serial=S][,on-error=A][,id=ID]  tap=IF[,mac=MAC][,id=ID] */
int config_add_disk(struct config *c, const char *value, struct err *e);
int config_add_net(struct config *c, const char *value, struct err *e);

/* NAME,socket=PATH */
int config_add_channel(struct config *c, const char *value, struct err *e);

/* restore: ID=PATH  ID=tap:IF */
int config_add_disk_override(struct config *c, const char *value, struct err *e);
int config_add_net_override(struct config *c, const char *value, struct err *e);

/* Default ids and MAC addresses, once all options were seen; refuses what is there twice. */
int config_complete_devices(struct config *c, struct err *e);

#endif
