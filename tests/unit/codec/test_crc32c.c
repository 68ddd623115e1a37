/* CRC-32C by each instruction set: the published values, and the same as bit by bit. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/codec/crc32c.h"

static uint32_t bit_by_bit(uint32_t crc, const uint8_t *p, size_t len)
{
	unsigned int bit;

	for (crc = ~crc; len; len--, p++)
		for (crc ^= *p, bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
	return ~crc;
}

START_TEST(published_values_come_out)
{
	static const struct {
		uint8_t first;
		int step;
		uint32_t crc;
	} known[] = { { 0, 0, 0x8a9136aa },
		      { 255, 0, 0x62a8ab43 },
		      { 0, 1, 0x46dd794e },
		      { 31, -1, 0x113fdb5c } }; /* 32 bytes each: RFC 3720, B.4 */
	const struct crc32c *c;

	for (unsigned int path = 0; (c = crc32c_path(path)); path++) {
		ck_assert_uint_eq(c->run(0, "123456789", 9), 0xe3069283);
		ck_assert_uint_eq(c->run(0, "", 0), 0);
		for (unsigned int i = 0; i < 4; i++) {
			uint8_t bytes[32];

			for (int n = 0; n < 32; n++)
				bytes[n] = (uint8_t)(known[i].first + n * known[i].step);
			ck_assert_uint_eq(c->run(0, bytes, 32), known[i].crc);
		}
	}
}
END_TEST

START_TEST(every_path_gives_the_same_at_any_length_and_place)
{
	enum { BYTES = 3 * 4096 };
	uint8_t *bytes = malloc(BYTES);
	uint64_t x = 88172645463325252ull;
	const struct crc32c *c;
	size_t i, len;

	for (i = 0; i < BYTES; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		bytes[i] = (uint8_t)x;
	}
	for (unsigned int path = 0; (c = crc32c_path(path)); path++)
		for (len = 0; len < BYTES - 16; len += len < 64 || len % 64 ? 1 : 63)
			for (i = 0; i < 16; i += 5) {
				uint32_t all = bit_by_bit(0, bytes + i, len);
				uint32_t half = c->run(0, bytes + i, len / 2);

				ck_assert_uint_eq(c->run(0, bytes + i, len), all);
				ck_assert_uint_eq(c->run(half, bytes + i + len / 2, len - len / 2),
						  all);
			}
	ck_assert_uint_eq(crc32c(0, bytes, BYTES), bit_by_bit(0, bytes, BYTES));
	ck_assert_str_eq(crc32c_portable.name, "portable");
	free(bytes);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("crc32c");
	TCase *c = tcase_create("crc32c");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_set_timeout(c, 60);
	tcase_add_test(c, published_values_come_out);
	tcase_add_test(c, every_path_gives_the_same_at_any_length_and_place);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
