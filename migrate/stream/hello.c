/* The beginning of a stream: see hello.h. Of the thread that reads or writes the connection. */
#include "migrate/stream/hello.h"

#include <inttypes.h>
#include <string.h>
#include <sys/utsname.h>

#include "migrate/channel/channel.h"
#include "vmm/base/err.h"
#include "vmm/base/words.h"
#include "vmm/memory.h"
#include "vmm/version.h"

static const uint8_t magic[8] = { 'G', 'O', 'D', 'W', 'I', 'T', '\r', '\n' };

/* -- HELLO -- */

/* A field of text: `size` - 1 bytes in the body, without what would upset a terminal. */
static void take_field(char *out, const uint8_t *from, size_t size)
{
	char text[16] = "";

	memcpy(text, from, size - 1);
	word_printable(out, size, text);
}

void hello_encode(const struct hello *h, uint8_t out[HELLO_BYTES])
{
	memset(out, 0, HELLO_BYTES);
	memcpy(out, magic, sizeof(magic));
	put_u32(out + 8, h->version);
	put_u32(out + 12, h->page_bytes);
	memcpy(out + 16, h->arch, strnlen(h->arch, 11));
	put_u32(out + 28, h->role);
	memcpy(out + 32, h->id, 16);
	memcpy(out + 48, h->program, strnlen(h->program, 11));
	out[59] = h->features;
	put_u32(out + 60, h->lanes);
}

int hello_decode(const struct record *r, struct hello *out, struct err *e)
{
	const uint8_t *b = r->body;

	if (r->type != RECORD_HELLO || r->body_bytes < 12 || memcmp(b, magic, sizeof(magic)))
		return err_set(e, "this is not a godwit stream");
	memset(out, 0, sizeof(*out));
	out->version = get_u32(b + 8);
	if (out->version > STREAM_VERSION)
		return err_set(e,
			       "made by a newer godwit (stream version %" PRIu32
			       ", this one reads up to %u)",
			       out->version, STREAM_VERSION);
	if (out->version == 0 || r->body_bytes != HELLO_BYTES)
		return err_set(e, "the stream's HELLO record is damaged");
	out->page_bytes = get_u32(b + 12);
	take_field(out->arch, b + 16, sizeof(out->arch));
	out->role = get_u32(b + 28);
	if (out->role < ROLE_MAIN || out->role > ROLE_PROBE)
		return err_set(e, "a connection in the unknown role %" PRIu32, out->role);
	memcpy(out->id, b + 32, 16);
	take_field(out->program, b + 48, sizeof(out->program));
	out->features = b[59];
	out->lanes = get_u32(b + 60);
	if (out->page_bytes != PAGE_SIZE)
		return err_set(e, "made with pages of %" PRIu32 " bytes, here they have %u",
			       out->page_bytes, PAGE_SIZE);
	return 0;
}

bool hello_begins_stream(const uint8_t first[RECORD_HEAD_BYTES + HELLO_BYTES])
{
	return first[0] == RECORD_HELLO && !first[1] &&
	       !memcmp(first + RECORD_HEAD_BYTES, magic, sizeof(magic));
}

/* The architecture of this host, at most size - 1 characters; "": not known. */
static void find_arch(char *out, size_t size)
{
	struct utsname u;

	memset(out, 0, size);
	if (uname(&u) == 0)
		memcpy(out, u.machine, strnlen(u.machine, size - 1));
}

int hello_send(struct writer *w, struct hello *h, struct err *e)
{
	const char *version = godwit_version();
	uint8_t body[HELLO_BYTES];

	h->version = STREAM_VERSION;
	h->page_bytes = PAGE_SIZE;
	find_arch(h->arch, sizeof(h->arch));
	if (!h->program[0])
		memcpy(h->program, version, strnlen(version, sizeof(h->program) - 1));
	hello_encode(h, body);
	return writer_record(w, RECORD_HELLO, body, sizeof(body), NULL, 0, e);
}

int hello_take(struct reader *r, struct hello *out, struct err *e)
{
	char here[sizeof(out->arch)];
	struct record rec;

	if (reader_record(r, &rec, e))
		return -1;
	if (hello_decode(&rec, out, e))
		return err_context(e, "%s", r->channel->name);
	find_arch(here, sizeof(here));
	if (strcmp(out->arch, here))
		return err_set(e, "%s: made on %s, this host is %s", r->channel->name, out->arch,
			       here);
	return 0;
}

int hello_take_machine(struct reader *r, const struct hello *h, struct tree *machine, struct err *e)
{
	struct record rec;

	if (h->role != ROLE_MAIN || !h->lanes || h->lanes > LANES_MAX)
		return err_set(e, "%s: not the beginning of a migration", r->channel->name);
	if (reader_expect(r, RECORD_MACHINE, &rec, e))
		return -1;
	if (tree_copy(machine, rec.body, rec.body_bytes, e))
		return err_context(e, "%s: the machine", r->channel->name);
	if (tree_count_nodes(machine) > TREE_MACHINE_NODES_MAX) {
		tree_free(machine);
		return err_set(e,
			       "%s: the machine: its tree has more nodes than any machine of this "
			       "version",
			       r->channel->name);
	}
	return 0;
}

/* -- CHECKED -- */

void checked_encode(const struct checked_costs *c, uint8_t out[CHECKED_COSTS_BYTES])
{
	put_u32(out, 0);
	put_u32(out + 4, c->build_us);
	put_u32(out + 8, c->load_us);
	put_u32(out + 12, c->start_us);
}

bool checked_decode(const struct record *r, struct checked_costs *out)
{
	if (r->body_bytes != CHECKED_COSTS_BYTES || get_u32(r->body))
		return false;
	*out = (struct checked_costs){ get_u32(r->body + 4), get_u32(r->body + 8),
				       get_u32(r->body + 12) };
	return true;
}

bool checked_refuses(const struct record *r)
{
	struct checked_costs c;

	return r->body_bytes && !checked_decode(r, &c);
}
