/* Answers to a probe: see answer_probe.h. On the thread of its connection (callers.c). */
#include "migrate/destination/answer_probe.h"

#include "migrate/channel/channel.h"
#include "migrate/stream/body.h"
#include "vmm/base/err.h"

int answer_probe(struct reader *r, struct err *e)
{
	struct writer w = { .channel = r->channel };
	uint64_t bytes = 0, before;
	uint32_t rounds = 0, round;
	struct record rec;
	uint8_t number[ROUND_BYTES];

	if (writer_record(&w, RECORD_CHECKED, NULL, 0, NULL, 0, e))
		return -1;
	for (;;) {
		before = r->bytes;
		if (reader_record(r, &rec, e)) /* the source may go between two records */
			return r->bytes == before && rounds ? 0 : -1;
		if (rec.type == RECORD_PROBE && probe_is_good(&rec)) {
			bytes += rec.data_bytes;
			if (bytes > PROBE_BYTES_MAX)
				return err_set(e, "%s: a probe of more than %u bytes",
					       r->channel->name, PROBE_BYTES_MAX);
			if (reader_skip(r, e))
				return -1;
			continue;
		}
		if (rec.type != RECORD_ROUND || round_decode(&rec, &round, NULL) ||
		    round != rounds + 1 || rounds == PROBE_ROUNDS_MAX)
			return err_set(e, "%s: a %s record that belongs to no probe",
				       r->channel->name, record_name(rec.type));
		round_encode(++rounds, number);
		if (writer_record(&w, RECORD_ROUND, number, sizeof(number), NULL, 0, e))
			return -1;
	}
}
