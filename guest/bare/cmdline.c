/*
 * The command line: words that say what to do (README.md lists them).
 *
 * An unknown word is reported and passed over; a value that makes no sense is an error that ends
 * the set-up, because a measurement of something else than what was asked for is worse than none.
 */
#include "bare.h"

static bool equal(const char *word, size_t length, const char *name)
{
	size_t i;

	for (i = 0; i < length && name[i]; i++)
		if (word[i] != name[i])
			return false;
	return i == length && !name[i];
}

static void say_word(const char *text, const char *word, size_t length)
{
	char copy[64];

	if (length > sizeof(copy) - 1)
		length = sizeof(copy) - 1;
	for (size_t i = 0; i < length; i++)
		copy[i] = (u8)word[i] < 0x20 ? '?' : word[i];
	copy[length] = 0;
	say(text);
	say(copy);
	say_end();
}

static bool number(const char *text, size_t length, u64 *value)
{
	*value = 0;
	if (length == 0 || length > 12)
		return false;
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		*value = *value * 10 + (u64)(text[i] - '0');
	}
	return true;
}

/* One word: its name, and its value if it has one. False: the value is wrong. */
static bool take(struct options *o, const char *word, size_t length)
{
	const struct {
		const char *name;
		u64 *value;
	} numbers[] = {
		{ "fill", &o->fill_mib },	 { "zero", &o->zero_mib },
		{ "from", &o->from_mib },	 { "write", &o->write_mib },
		{ "rate", &o->rate_mib },	 { "cpus", &o->cpus },
		{ "compute", &o->compute },	 { "poll", &o->poll_ms },
		{ "progress", &o->progress_ms }, { "tsc-khz", &o->tsc_khz },
		{ "corrupt", &o->corrupt },	 { "burst", &o->burst_mib },
		{ "rest", &o->rest_ms },
	};
	size_t name = 0;

	while (name < length && word[name] != '=')
		name++;
	if (name == length) {
		if (equal(word, length, "idle"))
			o->idle = true;
		else
			say_word("error unknown word ", word, length);
		return true;
	}

	const char *value = word + name + 1;
	size_t value_length = length - name - 1;

	if (equal(word, name, "fill") && equal(value, value_length, "all")) {
		o->fill_all = true;
		return true;
	}
	if (equal(word, name, "mode")) {
		o->sparse = equal(value, value_length, "sparse");
		return o->sparse || equal(value, value_length, "page");
	}
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		if (!equal(word, name, numbers[i].name))
			continue;
		if (equal(word, name, "corrupt"))
			o->corrupt_given = true;
		return number(value, value_length, numbers[i].value);
	}
	say_word("error unknown word ", word, length);
	return true;
}

static bool check(const struct options *o)
{
	const char *wrong = NULL;

	if (o->cpus == 0 || o->cpus > MAX_CPUS || o->compute > MAX_CPUS - o->cpus)
		wrong = "cpus and compute must be 1 to 64 CPUs together";
	else if (!o->fill_all && o->write_mib > o->fill_mib)
		wrong = "write is more than fill";
	else if (o->idle && (o->write_mib || o->compute))
		wrong = "idle goes with neither write nor compute";
	else if (o->rate_mib && !o->write_mib)
		wrong = "rate without write";
	else if (o->burst_mib && !o->write_mib)
		wrong = "burst without write";
	else if (!o->burst_mib != !o->rest_ms)
		wrong = "burst and rest go together";
	if (wrong) {
		say("error ");
		say(wrong);
		say_end();
	}
	return !wrong;
}

bool cmdline_parse(struct options *o, const char *text)
{
	bool good = true;

	*o = (struct options){ .cpus = 1, .poll_ms = 10 };
	while (*text) {
		const char *word = text;

		while (*text && *text != ' ')
			text++;
		if (text == word) {
			text++;
			continue;
		}
		if (!take(o, word, (size_t)(text - word))) {
			say_word("error bad value in ", word, (size_t)(text - word));
			good = false;
		}
	}
	return good && check(o);
}
