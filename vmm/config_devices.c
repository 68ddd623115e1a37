/*
 * The words of --disk, --net and --channel: see config_internal.h. Main thread, before anything
 * else. Invariant: ids differ from each other and from the machine's own nodes, so that each can
 * name a node of the tree.
 */
#include "vmm/config_internal.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/base/words.h"
#include "vmm/config.h"

#define ID_MAX	   63 /* struct device's id, with its zero, has 64 bytes */
#define SERIAL_MAX 20 /* virtio 1.2, 5.2.6: VIRTIO_BLK_T_GET_ID */
#define TAP_MAX	   15 /* IFNAMSIZ with its zero is 16 */
#define PARTS_MAX  8

/* Keeps a copy until config_free(); NULL with a sentence when there is no room for it. */
static char *keep(struct config *c, const char *text, struct err *e)
{
	char *copy = NULL;

	if (c->n_texts < sizeof(c->texts) / sizeof(c->texts[0]))
		copy = strdup(text);
	if (copy)
		c->texts[c->n_texts++] = copy;
	else
		err_set(e, "too many options, or out of memory");
	return copy;
}

/* Splits at commas, in place; a doubled comma is one comma of the text. -1: too many parts. */
static int split(char *text, char *parts[PARTS_MAX], struct err *e)
{
	char *to = text;
	int n = 0;

	parts[n++] = to;
	for (const char *from = text; *from; from++) {
		if (from[0] != ',') {
			*to++ = *from;
		} else if (from[1] == ',') {
			*to++ = ',';
			from++;
		} else {
			if (n == PARTS_MAX)
				return err_set(e, "more than %d sub-options", PARTS_MAX - 1);
			*to++ = '\0';
			parts[n++] = to;
		}
	}
	*to = '\0';
	return n;
}

/* Cuts "key=value" in two; the value is NULL when there is no '='. */
static char *value_of(char *part)
{
	char *equals = strchr(part, '=');

	if (!equals)
		return NULL;
	*equals = '\0';
	return equals + 1;
}

static int unknown_sub_option(const char *key, const char *const *known, struct err *e)
{
	const char *nearest = word_nearest(key, known);

	if (nearest)
		return err_set(e, "unknown sub-option '%s' (did you mean %s?)", key, nearest);
	return err_set(e, "unknown sub-option '%s' (a comma in a path is written twice)", key);
}

/* Sub-options of --disk, --net and --channel, in one table: which of them may follow is `known`. */
struct sub_options {
	const char *serial, *id, *tap, *mac, *socket, *on_error;
	bool readonly;
};

static int sub_option(struct sub_options *s, char *part, const char *const *known, struct err *e)
{
	char *value = value_of(part);
	bool is_known = false;
	const char **to;

	for (unsigned int i = 0; known[i]; i++)
		is_known |= !strcmp(part, known[i]);
	if (!is_known)
		return unknown_sub_option(part, known, e);
	if (!strcmp(part, "readonly")) {
		if (value)
			return err_set(e, "sub-option 'readonly' takes no value");
		s->readonly = true;
		return 0;
	}
	if (!value || !*value)
		return err_set(e, "sub-option '%s' needs a value (%s=...)", part, part);
	to = !strcmp(part, "serial")	 ? &s->serial
	     : !strcmp(part, "on-error") ? &s->on_error
	     : !strcmp(part, "id")	 ? &s->id
	     : !strcmp(part, "tap")	 ? &s->tap
	     : !strcmp(part, "mac")	 ? &s->mac
					 : &s->socket;
	if (*to)
		return err_set(e, "sub-option '%s' is given twice", part);
	*to = value;
	return 0;
}

static int check_id(const char *id, struct err *e)
{
	/* Nodes of the machine's own devices, and of the host's side that is no device's. */
	static const char *const taken[] = { "serial0",	 "power",    "i8042", "rng0",
					     "balloon0", "channels", "boot" };

	if (word_check_name("id", id, ID_MAX, e))
		return -1;
	for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++)
		if (!strcmp(id, taken[i]))
			return err_set(e, "id '%s' is the machine's own; choose another", id);
	return 0;
}

static bool is_nbd(const char *path)
{
	return !strncmp(path, "nbd:", 4) || !strncmp(path, "nbds:", 5) ||
	       !strncmp(path, "nbd+unix:", 9) || !strncmp(path, "nbds+unix:", 10);
}

static int check_disk_path(const char *path, struct err *e)
{
	if (!*path)
		return err_set(e, "the path is empty");
	if (is_nbd(path))
		return err_set(e,
			       "'%s': network block devices are not supported; give a raw image "
			       "file or a block device",
			       path);
	return 0;
}

static int check_tap(const char *tap, struct err *e)
{
	size_t n = strlen(tap);

	if (n == 0 || n > TAP_MAX)
		return err_set(e,
			       "tap interface name '%.40s' has %zu characters (expected 1 to %d)",
			       tap, n, TAP_MAX);
	for (const char *p = tap; *p; p++)
		if (*p == '/' || *p == ':' || !isgraph((unsigned char)*p))
			return err_set(e, "'%s' is not the name of a network interface", tap);
	return 0;
}

static int parse_mac(const char *text, uint8_t mac[6], struct err *e)
{
	uint8_t any = 0;

	if (strlen(text) != 17)
		goto bad;
	for (int i = 0; i < 6; i++) {
		const char *p = text + 3 * i;

		if (!isxdigit((unsigned char)p[0]) || !isxdigit((unsigned char)p[1]) ||
		    (i < 5 && p[2] != ':'))
			goto bad;
		mac[i] = (uint8_t)strtoul((char[]){ p[0], p[1], '\0' }, NULL, 16);
		any |= mac[i];
	}
	if (mac[0] & 1)
		return err_set(e, "MAC address %s is a multicast address (the first byte is odd)",
			       text);
	if (!any)
		return err_set(e, "MAC address %s is all zero", text);
	return 0;
bad:
	return err_set(e, "'%s' is not a MAC address (expected six bytes as in 52:54:00:12:34:56)",
		       text);
}

static int room(unsigned int n, const char *what, struct err *e)
{
	if (n < CONFIG_DEVICES_MAX)
		return 0;
	return err_set(e, "more than %d %s", CONFIG_DEVICES_MAX, what);
}

int config_add_disk(struct config *c, const char *value, struct err *e)
{
	static const char *const known[] = { "readonly", "serial", "on-error", "id", NULL };
	char *text = keep(c, value, e), *parts[PARTS_MAX];
	struct sub_options s = { 0 };
	int n;

	if (!text || room(c->n_disks, "disks", e))
		return -1;
	n = split(text, parts, e);
	if (n < 0 || check_disk_path(parts[0], e))
		return -1;
	for (int i = 1; i < n; i++)
		if (sub_option(&s, parts[i], known, e))
			return -1;
	if (s.serial && strlen(s.serial) > SERIAL_MAX)
		return err_set(e, "serial number '%.40s' has %zu bytes (at most %d)", s.serial,
			       strlen(s.serial), SERIAL_MAX);
	for (const char *p = s.serial; p && *p; p++)
		if (!isprint((unsigned char)*p))
			return err_set(e, "serial number has a byte 0x%02x that is no ASCII text",
				       (unsigned char)*p);
	if (s.on_error && strcmp(s.on_error, "enospc") && strcmp(s.on_error, "stop") &&
	    strcmp(s.on_error, "report"))
		return err_set(e, "on-error is '%.20s' (expected enospc, stop or report)",
			       s.on_error);
	if (s.id && check_id(s.id, e))
		return -1;
	c->disks[c->n_disks++] = (struct config_disk){ .id = s.id,
						       .path = parts[0],
						       .serial = s.serial,
						       .on_error = s.on_error,
						       .readonly = s.readonly };
	return 0;
}

int config_add_net(struct config *c, const char *value, struct err *e)
{
	static const char *const known[] = { "tap", "mac", "id", NULL };
	char *text = keep(c, value, e), *parts[PARTS_MAX];
	struct config_net net = { 0 };
	struct sub_options s = { 0 };
	int n;

	if (!text || room(c->n_nets, "network cards", e))
		return -1;
	n = split(text, parts, e);
	if (n < 0)
		return -1;
	for (int i = 0; i < n; i++)
		if (sub_option(&s, parts[i], known, e))
			return -1;
	if (!s.tap)
		return err_set(e, "no tap interface (expected tap=IF)");
	if (check_tap(s.tap, e) || (s.mac && parse_mac(s.mac, net.mac, e)) ||
	    (s.id && check_id(s.id, e)))
		return -1;
	net.tap = s.tap;
	net.id = s.id;
	c->nets[c->n_nets++] = net;
	return 0;
}

int config_add_channel(struct config *c, const char *value, struct err *e)
{
	static const char *const known[] = { "socket", NULL };
	char *text = keep(c, value, e), *parts[PARTS_MAX];
	struct sub_options s = { 0 };
	int n;

	if (!text || room(c->n_channels, "channels", e))
		return -1;
	n = split(text, parts, e);
	if (n < 0 || word_check_name("channel name", parts[0], ID_MAX, e))
		return -1;
	for (int i = 1; i < n; i++)
		if (sub_option(&s, parts[i], known, e))
			return -1;
	if (!s.socket)
		return err_set(e, "channel '%s' has no socket (expected NAME,socket=PATH)",
			       parts[0]);
	for (unsigned int i = 0; i < c->n_channels; i++)
		if (!strcmp(c->channels[i].name, parts[0]))
			return err_set(e, "channel '%s' is given twice", parts[0]);
	c->channels[c->n_channels++] = (struct config_channel){ .name = parts[0],
								.socket = s.socket };
	return 0;
}

/* restore: "ID=VALUE" into a list of overrides. */
static int parse_override(struct config *c, const char *value, struct config_override *list,
			  unsigned int *n_list, struct err *e)
{
	bool is_disk = list == c->disk_overrides, copy = false;
	const char *const known[] = { is_disk ? "copy" : NULL, NULL };
	char *text = keep(c, value, e), *parts[PARTS_MAX], *to;
	int n;

	if (!text || room(*n_list, "of them", e))
		return -1;
	n = split(text, parts, e);
	if (n < 0)
		return -1;
	to = value_of(parts[0]);
	if (!to)
		return err_set(e,
			       "'%s' has no '=': expected the id that the saved machine knows, "
			       "then '=' and what it is here",
			       parts[0]);
	for (int i = 1; i < n; i++) {
		if (!is_disk || strcmp(parts[i], "copy"))
			return unknown_sub_option(parts[i], known, e);
		copy = true;
	}
	if (check_id(parts[0], e))
		return -1;
	for (unsigned int i = 0; i < *n_list; i++)
		if (!strcmp(list[i].id, parts[0]))
			return err_set(e, "id '%s' is given twice", parts[0]);
	list[(*n_list)++] = (struct config_override){ .id = parts[0], .value = to, .copy = copy };
	return 0;
}

int config_add_disk_override(struct config *c, const char *value, struct err *e)
{
	if (parse_override(c, value, c->disk_overrides, &c->n_disk_overrides, e))
		return -1;
	return check_disk_path(c->disk_overrides[c->n_disk_overrides - 1].value, e);
}

int config_add_net_override(struct config *c, const char *value, struct err *e)
{
	struct config_override *o;

	if (parse_override(c, value, c->net_overrides, &c->n_net_overrides, e))
		return -1;
	o = &c->net_overrides[c->n_net_overrides - 1];
	if (strncmp(o->value, "tap:", 4))
		return err_set(e, "'%s' is not tap:IF", o->value);
	o->value += 4;
	return check_tap(o->value, e);
}

/* The id itself, or PREFIX and the number. */
static const char *id_or_default(struct config *c, const char *id, const char *prefix,
				 unsigned int n, struct err *e)
{
	char text[32];

	if (id)
		return id;
	snprintf(text, sizeof(text), "%s%u", prefix, n);
	return keep(c, text, e);
}

/* Ids of disks and network cards are one set: each is a node of its own. */
static int check_ids_differ(const struct config *c, struct err *e)
{
	const char *ids[2 * CONFIG_DEVICES_MAX];
	unsigned int n = 0;

	for (unsigned int i = 0; i < c->n_disks; i++)
		ids[n++] = c->disks[i].id;
	for (unsigned int i = 0; i < c->n_nets; i++)
		ids[n++] = c->nets[i].id;
	for (unsigned int i = 0; i < n; i++)
		for (unsigned int j = 0; j < i; j++)
			if (!strcmp(ids[i], ids[j]))
				return err_set(e, "two devices have the id '%s'", ids[i]);
	return 0;
}

/*
 * A card that was given no address gets one that is the same whenever a VM of this name is
 * started: 52:54:00 (locally administered) and 24 bits of the FNV-1a hash of name and id.
 */
static void derive_mac(const char *name, const char *id, uint8_t mac[6])
{
	uint64_t hash = 0xcbf29ce484222325ull;

	for (const char *p = name; *p; p++)
		hash = (hash ^ (uint8_t)*p) * 0x100000001b3ull;
	hash = (hash ^ '/') * 0x100000001b3ull;
	for (const char *p = id; *p; p++)
		hash = (hash ^ (uint8_t)*p) * 0x100000001b3ull;
	mac[0] = 0x52;
	mac[1] = 0x54;
	mac[2] = 0x00;
	mac[3] = (uint8_t)(hash >> 40);
	mac[4] = (uint8_t)(hash >> 24);
	mac[5] = (uint8_t)(hash >> 8);
}

static int complete_nets(struct config *c, struct err *e)
{
	static const uint8_t none[6];

	for (unsigned int i = 0; i < c->n_nets; i++) {
		struct config_net *net = &c->nets[i];

		if (!memcmp(net->mac, none, sizeof(none)))
			derive_mac(c->name, net->id, net->mac);
		for (unsigned int j = 0; j < i; j++) {
			if (!memcmp(c->nets[j].mac, net->mac, sizeof(none)))
				return err_set(e, "%s and %s have the same MAC address",
					       c->nets[j].id, net->id);
			if (!strcmp(c->nets[j].tap, net->tap))
				return err_set(e, "%s and %s use the same tap interface '%s'",
					       c->nets[j].id, net->id, net->tap);
		}
	}
	return 0;
}

int config_complete_devices(struct config *c, struct err *e)
{
	for (unsigned int i = 0; i < c->n_disks; i++) {
		c->disks[i].id = id_or_default(c, c->disks[i].id, "disk", i, e);
		if (!c->disks[i].id)
			return -1;
	}
	for (unsigned int i = 0; i < c->n_nets; i++) {
		c->nets[i].id = id_or_default(c, c->nets[i].id, "net", i, e);
		if (!c->nets[i].id)
			return -1;
	}
	return check_ids_differ(c, e) || complete_nets(c, e) ? -1 : 0;
}
