/*
 * Writing ACPI machine language (ACPI 6.4, chapter 20) and resource descriptors (section 6.4) into
 * a buffer of fixed size. Pure. Overrunning the buffer writes nothing more and sets `full`, which
 * the caller asks once at the end; so no function here can fail.
 */
#ifndef GODWIT_X86_64_AML_H
#define GODWIT_X86_64_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct aml {
	uint8_t *buf;
	size_t max, len;
	bool full;
};

#define AML_LOCAL0 0x60
#define AML_STORE  0x70
#define AML_AND	   0x7b
#define AML_NOTIFY 0x86
#define AML_IF	   0xa0
#define AML_NULL   0x00 /* as a target: the result is not stored */

void aml_bytes(struct aml *a, const void *bytes, size_t len);
void aml_u8(struct aml *a, uint8_t v);
void aml_u16(struct aml *a, uint16_t v);
void aml_u32(struct aml *a, uint32_t v);
void aml_u64(struct aml *a, uint64_t v);

void aml_integer(struct aml *a, uint64_t v);
void aml_string(struct aml *a, const char *text);
/* "PNP0501": three capitals and four hexadecimal digits, packed into an integer. */
void aml_eisa_id(struct aml *a, const char *id);
/* A path of names of four characters each: "\\_SB_.PWRB", "_CRS". */
void aml_path(struct aml *a, const char *path);

/*
 * Things with a length in front: what is written between open and close is inside. Everything that
 * an open returns goes to aml_close, innermost first.
 */
size_t aml_open(struct aml *a);
size_t aml_open_scope(struct aml *a, const char *path);
size_t aml_open_device(struct aml *a, const char *name);
size_t aml_open_method(struct aml *a, const char *name, unsigned int args, bool serialized);
size_t aml_open_package(struct aml *a, uint8_t elements);
void aml_close(struct aml *a, size_t opened);

/* Name (PATH, ...): the value is what is written next. */
void aml_name(struct aml *a, const char *path);
void aml_name_integer(struct aml *a, const char *path, uint64_t v);

/* Region of the system's ports, and one field of eight bits at its start. */
void aml_port_byte(struct aml *a, const char *region, const char *field, uint16_t port);

/* Resources are gathered in an `aml` of their own, then put into a device as its _CRS. */
void aml_resource_ports(struct aml *r, uint16_t base, uint8_t ports);
void aml_resource_memory(struct aml *r, uint32_t base, uint32_t bytes);
void aml_resource_interrupt(struct aml *r, uint32_t gsi); /* edge, active high, exclusive */
void aml_resources(struct aml *a, const struct aml *r);

#endif
