/*
 * The destination's end of a probe, by which a source measures the link (check/probe.h). The data
 * are discarded. Whatever comes, it ends within the bounds of PROBE_BYTES_MAX and PROBE_ROUNDS_MAX.
 */
#ifndef GODWIT_MIGRATE_DESTINATION_ANSWER_PROBE_H
#define GODWIT_MIGRATE_DESTINATION_ANSWER_PROBE_H

struct err;
struct reader;

/* Answers after HELLO, until the source closes; -1: the source did not keep to the protocol. */
int answer_probe(struct reader *r, struct err *e);

#endif
