/*
 * ACPI machine language: see aml.h. Pure, any thread.
 * Invariant: a->len never passes a->max; once full, nothing is written.
 */
#include "vmm/x86_64/aml.h"

#include <string.h>

#define OP_ZERO		0x00
#define OP_ONE		0x01
#define OP_NAME		0x08
#define OP_BYTE		0x0a
#define OP_WORD		0x0b
#define OP_DWORD	0x0c
#define OP_STRING	0x0d
#define OP_QWORD	0x0e
#define OP_SCOPE	0x10
#define OP_BUFFER	0x11
#define OP_PACKAGE	0x12
#define OP_METHOD	0x14
#define OP_EXTENDED	0x5b
#define EXT_REGION	0x80
#define EXT_FIELD	0x81
#define EXT_DEVICE	0x82
#define PREFIX_DUAL	0x2e
#define PREFIX_MULTI	0x2f
#define SPACE_SYSTEM_IO 1
#define FIELD_BYTE_ACC	1 /* no lock, preserve */

#define RESOURCE_PORTS	   0x47
#define RESOURCE_MEMORY32  0x86
#define RESOURCE_INTERRUPT 0x89
#define RESOURCE_END	   0x79

void aml_bytes(struct aml *a, const void *bytes, size_t len)
{
	if (a->full || len > a->max - a->len) {
		a->full = true;
		return;
	}
	memcpy(a->buf + a->len, bytes, len);
	a->len += len;
}

void aml_u8(struct aml *a, uint8_t v)
{
	aml_bytes(a, &v, sizeof(v));
}

void aml_u16(struct aml *a, uint16_t v)
{
	aml_bytes(a, &v, sizeof(v));
}

void aml_u32(struct aml *a, uint32_t v)
{
	aml_bytes(a, &v, sizeof(v));
}

void aml_u64(struct aml *a, uint64_t v)
{
	aml_bytes(a, &v, sizeof(v));
}

void aml_integer(struct aml *a, uint64_t v)
{
	if (v <= 1) {
		aml_u8(a, v ? OP_ONE : OP_ZERO);
	} else if (v <= UINT8_MAX) {
		aml_u8(a, OP_BYTE);
		aml_u8(a, (uint8_t)v);
	} else if (v <= UINT16_MAX) {
		aml_u8(a, OP_WORD);
		aml_u16(a, (uint16_t)v);
	} else if (v <= UINT32_MAX) {
		aml_u8(a, OP_DWORD);
		aml_u32(a, (uint32_t)v);
	} else {
		aml_u8(a, OP_QWORD);
		aml_u64(a, v);
	}
}

void aml_string(struct aml *a, const char *text)
{
	aml_u8(a, OP_STRING);
	aml_bytes(a, text, strlen(text) + 1);
}

void aml_eisa_id(struct aml *a, const char *id)
{
	uint32_t v = 0;

	for (unsigned int i = 0; i < 3; i++)
		v = v << 5 | ((uint32_t)id[i] - '@');
	for (unsigned int i = 3; i < 7; i++)
		v = v << 4 | (id[i] <= '9' ? (uint32_t)id[i] - '0' : (uint32_t)id[i] - 'A' + 10);
	/* The one big-endian number in ACPI. */
	aml_u8(a, OP_DWORD);
	aml_u32(a, __builtin_bswap32(v));
}

void aml_path(struct aml *a, const char *path)
{
	size_t segments;

	if (*path == '\\')
		aml_u8(a, (uint8_t)*path++);
	segments = (strlen(path) + 1) / 5;
	if (segments == 0) {
		aml_u8(a, 0);
	} else if (segments == 2) {
		aml_u8(a, PREFIX_DUAL);
	} else if (segments > 2) {
		aml_u8(a, PREFIX_MULTI);
		aml_u8(a, (uint8_t)segments);
	}
	for (size_t i = 0; i < segments; i++)
		aml_bytes(a, path + 5 * i, 4);
}

/* A length in one to four bytes: the first says how many follow. The return: how many in all. */
static unsigned int encode_length(uint32_t v, uint8_t out[4])
{
	unsigned int more = v < 0x40 ? 0 : v < 0x1000 ? 1 : v < 0x100000 ? 2 : 3;

	if (!more) {
		out[0] = (uint8_t)v;
		return 1;
	}
	out[0] = (uint8_t)(more << 6 | (v & 0xf));
	for (unsigned int i = 0; i < more; i++)
		out[1 + i] = (uint8_t)(v >> (4 + 8 * i));
	return 1 + more;
}

size_t aml_open(struct aml *a)
{
	return a->len;
}

size_t aml_open_scope(struct aml *a, const char *path)
{
	size_t at;

	aml_u8(a, OP_SCOPE);
	at = aml_open(a);
	aml_path(a, path);
	return at;
}

size_t aml_open_device(struct aml *a, const char *name)
{
	size_t at;

	aml_u8(a, OP_EXTENDED);
	aml_u8(a, EXT_DEVICE);
	at = aml_open(a);
	aml_path(a, name);
	return at;
}

size_t aml_open_method(struct aml *a, const char *name, unsigned int args, bool serialized)
{
	size_t at;

	aml_u8(a, OP_METHOD);
	at = aml_open(a);
	aml_path(a, name);
	aml_u8(a, (uint8_t)(args | (serialized ? 8u : 0u)));
	return at;
}

size_t aml_open_package(struct aml *a, uint8_t elements)
{
	size_t at;

	aml_u8(a, OP_PACKAGE);
	at = aml_open(a);
	aml_u8(a, elements);
	return at;
}

void aml_close(struct aml *a, size_t opened)
{
	static const uint8_t room[4];
	size_t inside;
	uint8_t length[4];
	unsigned int n;

	if (a->full)
		return;
	/* The length counts its own bytes too, which may make it one byte longer. */
	inside = a->len - opened;
	n = encode_length((uint32_t)inside + 1, length);
	while (encode_length((uint32_t)inside + n, length) != n)
		n++;
	aml_bytes(a, room, n);
	if (a->full)
		return;
	memmove(a->buf + opened + n, a->buf + opened, inside);
	memcpy(a->buf + opened, length, n);
}

void aml_name(struct aml *a, const char *path)
{
	aml_u8(a, OP_NAME);
	aml_path(a, path);
}

void aml_name_integer(struct aml *a, const char *path, uint64_t v)
{
	aml_name(a, path);
	aml_integer(a, v);
}

void aml_port_byte(struct aml *a, const char *region, const char *field, uint16_t port)
{
	size_t at;

	aml_u8(a, OP_EXTENDED);
	aml_u8(a, EXT_REGION);
	aml_path(a, region);
	aml_u8(a, SPACE_SYSTEM_IO);
	aml_integer(a, port);
	aml_integer(a, 1);

	aml_u8(a, OP_EXTENDED);
	aml_u8(a, EXT_FIELD);
	at = aml_open(a);
	aml_path(a, region);
	aml_u8(a, FIELD_BYTE_ACC);
	aml_path(a, field);
	aml_u8(a, 8); /* bits, in the encoding of lengths */
	aml_close(a, at);
}

void aml_resource_ports(struct aml *r, uint16_t base, uint8_t ports)
{
	aml_u8(r, RESOURCE_PORTS);
	aml_u8(r, 1); /* decodes 16 bits */
	aml_u16(r, base);
	aml_u16(r, base);
	aml_u8(r, 1); /* alignment */
	aml_u8(r, ports);
}

void aml_resource_memory(struct aml *r, uint32_t base, uint32_t bytes)
{
	aml_u8(r, RESOURCE_MEMORY32);
	aml_u16(r, 9);
	aml_u8(r, 1); /* read and write */
	aml_u32(r, base);
	aml_u32(r, bytes);
}

void aml_resource_interrupt(struct aml *r, uint32_t gsi)
{
	aml_u8(r, RESOURCE_INTERRUPT);
	aml_u16(r, 6);
	aml_u8(r, 3); /* consumer, edge, active high, exclusive */
	aml_u8(r, 1);
	aml_u32(r, gsi);
}

void aml_resources(struct aml *a, const struct aml *r)
{
	size_t at;

	if (r->full)
		a->full = true;
	aml_name(a, "_CRS");
	aml_u8(a, OP_BUFFER);
	at = aml_open(a);
	aml_integer(a, r->len + 2);
	aml_bytes(a, r->buf, r->len);
	aml_u8(a, RESOURCE_END);
	aml_u8(a, 0); /* no checksum */
	aml_close(a, at);
}
