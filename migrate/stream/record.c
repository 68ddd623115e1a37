/* Records' names, numbers and texts: see record.h. Pure. */
#include "migrate/stream/record.h"

#include <string.h>

#include "vmm/base/words.h"

void put_u32(uint8_t *at, uint32_t v)
{
	at[0] = (uint8_t)v;
	at[1] = (uint8_t)(v >> 8);
	at[2] = (uint8_t)(v >> 16);
	at[3] = (uint8_t)(v >> 24);
}

void put_u64(uint8_t *at, uint64_t v)
{
	put_u32(at, (uint32_t)v);
	put_u32(at + 4, (uint32_t)(v >> 32));
}

uint32_t get_u32(const uint8_t *at)
{
	return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 |
	       (uint32_t)at[3] << 24;
}

uint64_t get_u64(const uint8_t *at)
{
	return get_u32(at) | (uint64_t)get_u32(at + 4) << 32;
}

const char *record_name(uint16_t type)
{
	switch (type) {
	case RECORD_HELLO:
		return "HELLO";
	case RECORD_MACHINE:
		return "MACHINE";
	case RECORD_PAGES:
		return "PAGES";
	case RECORD_STATES:
		return "STATES";
	case RECORD_END:
		return "END";
	case RECORD_CHECKED:
		return "CHECKED";
	case RECORD_ROUND:
		return "ROUND";
	case RECORD_READY:
		return "READY";
	case RECORD_GO:
		return "GO";
	case RECORD_RUNNING:
		return "RUNNING";
	case RECORD_FAILED:
		return "FAILED";
	case RECORD_AHEAD:
		return "AHEAD";
	case RECORD_PROBE:
		return "PROBE";
	case RECORD_WANT:
		return "WANT";
	case RECORD_DISCARD:
		return "DISCARD";
	case RECORD_ARRIVED:
		return "ARRIVED";
	case RECORD_RECOVER:
		return "RECOVER";
	case RECORD_DISK:
		return "DISK";
	case RECORD_DISCARD_DISK:
		return "DISCARD_DISK";
	default:
		return "unknown";
	}
}

uint32_t record_body_max(uint16_t type, uint32_t n_vcpus)
{
	if (type != RECORD_STATES)
		return RECORD_BODY_MAX;
	return RECORD_BODY_MAX +
	       (n_vcpus < RECORD_VCPUS_MAX ? n_vcpus : RECORD_VCPUS_MAX) * RECORD_VCPU_MAX;
}

void record_text(const struct record *r, char *out, size_t size)
{
	char text[RECORD_TEXT_MAX + 1];
	size_t len = r->body_bytes < RECORD_TEXT_MAX ? r->body_bytes : RECORD_TEXT_MAX;

	memcpy(text, r->body, len);
	text[len] = 0;
	word_printable(out, size, text);
}
