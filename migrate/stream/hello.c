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
	put_u32(out + 60, h->lanes);
	put_u64(out + 64, h->wanted);
	put_u64(out + 72, h->needed);
}

const char *feature_name(unsigned int bit)
{
	static const char *const names[] = { "costs", "checksums", "post-copy", "disks",
					     "recovery" };

	return bit < sizeof(names) / sizeof(names[0]) ? names[bit] : NULL;
}

/* Names the first feature that is needed and not implemented. */
static int check_needed(uint64_t needed, struct err *e)
{
	const uint64_t missing = needed & ~FEATURES_IMPLEMENTED;
	const unsigned int bit = missing ? (unsigned int)__builtin_ctzll(missing) : 0;

	if (!missing)
		return 0;
	if (feature_name(bit))
		return err_set(e, "the stream needs %s (feature %u): not implemented",
			       feature_name(bit), bit);
	return err_set(e, "the stream needs feature %u, which this version does not know", bit);
}

static int check_role(uint32_t role, struct err *e)
{
	static const char *const reserved[] = {
		[ROLE_FAULTS] = "FAULTS", [ROLE_DISK] = "DISK", [ROLE_RECOVER] = "RECOVER"
	};

	if (role >= ROLE_MAIN && role <= ROLE_PROBE)
		return 0;
	if (role >= ROLE_FAULTS && role <= ROLE_RECOVER)
		return err_set(e, "a connection in the role %s (%" PRIu32 "): not implemented",
			       reserved[role], role);
	return err_set(e, "a connection in the unknown role %" PRIu32, role);
}

/* The words of features. A source of version 1 had one: whether it hears costs. */
static void take_features(const uint8_t *b, struct hello *out)
{
	if (out->version == 1) {
		out->wanted = b[59] & 1 ? FEATURE_COSTS : 0;
	} else {
		out->wanted = get_u64(b + 64);
		out->needed = get_u64(b + 72);
	}
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
			       ", this one reads versions %u to %u)",
			       out->version, STREAM_VERSION_MIN, STREAM_VERSION);
	if (out->version < STREAM_VERSION_MIN ||
	    r->body_bytes != (out->version == 1 ? HELLO_V1_BYTES : HELLO_BYTES))
		return err_set(e, "the stream's HELLO record is damaged");
	out->page_bytes = get_u32(b + 12);
	take_field(out->arch, b + 16, sizeof(out->arch));
	out->role = get_u32(b + 28);
	if (check_role(out->role, e))
		return -1;
	memcpy(out->id, b + 32, 16);
	take_field(out->program, b + 48, sizeof(out->program));
	out->lanes = get_u32(b + 60);
	take_features(b, out);
	if (check_needed(out->needed, e))
		return -1;
	if (out->page_bytes != PAGE_SIZE)
		return err_set(e, "made with pages of %" PRIu32 " bytes, here they have %u",
			       out->page_bytes, PAGE_SIZE);
	return 0;
}

bool hello_begins_stream(const uint8_t first[RECORD_HEAD_BYTES + HELLO_V1_BYTES])
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
	r->version = out->version;
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

size_t checked_encode(const struct checked *c, uint32_t version, uint8_t out[CHECKED_BYTES])
{
	const bool costs = c->features & FEATURE_COSTS;

	put_u32(out, 0);
	put_u32(out + 4, costs ? c->costs.build_us : 0);
	put_u32(out + 8, costs ? c->costs.load_us : 0);
	put_u32(out + 12, costs ? c->costs.start_us : 0);
	put_u64(out + 16, c->features);
	if (version == 1)
		return costs ? CHECKED_V1_BYTES : 0;
	return CHECKED_BYTES;
}

bool checked_decode(const struct record *r, struct checked *out)
{
	memset(out, 0, sizeof(*out));
	if (!r->body_bytes)
		return true;
	if (r->body_bytes != CHECKED_BYTES || get_u32(r->body))
		return false;
	out->costs = (struct checked_costs){ get_u32(r->body + 4), get_u32(r->body + 8),
					     get_u32(r->body + 12) };
	out->features = get_u64(r->body + 16);
	return true;
}

int checked_fits(const struct checked *c, const struct hello *h, struct err *e)
{
	const uint64_t extra = c->features & ~(h->wanted | h->needed);
	const uint64_t missing = h->needed & ~c->features;

	if (extra)
		return err_set(
			e,
			"the destination accepts features that it was not asked for (0x%" PRIx64
			")",
			extra);
	if (missing)
		return err_set(
			e,
			"the destination does not accept features that are needed (0x%" PRIx64 ")",
			missing);
	return 0;
}
