/*
 * Fuzzing what people and clients write: URIs and the options of a VM. Each is taken
 * or refused with a sentence that can be printed, and what was taken holds what its header says.
 */
#include <stdlib.h>
#include <string.h>

#include "migrate/channel/uri.h"
#include "vmm/base/err.h"
#include "vmm/base/words.h"
#include "vmm/config.h"

#define WORDS_MAX 8

int LLVMFuzzerTestOneInput(const uint8_t *in, size_t len);

static void parse_uri(const char *text)
{
	struct err e = { "" };
	struct uri u;

	if (uri_parse(text, &u, &e)) {
		if (!e.text[0])
			abort();
		return;
	}
	if (strcmp(u.text, text) || (u.kind == URI_TCP && strtoul(u.port, NULL, 10) > 65535) ||
	    ((u.kind == URI_UNIX || u.kind == URI_FILE) && !u.path[0]))
		abort();
	if (uri_check_listen(&u, &e) && !e.text[0])
		abort();
}

/* The words between newlines, behind one that names a kernel. */
static void parse_options(char *text)
{
	char *words[WORDS_MAX + 2] = { "--kernel", "/k" };
	struct config c;
	struct err e = { "" };
	int n = 2;

	for (char *save, *w = strtok_r(text, "\n", &save); w && n < WORDS_MAX + 2;
	     w = strtok_r(NULL, "\n", &save))
		words[n++] = w;
	if (config_parse(&c, CONFIG_RUN, n, words, &e) && !e.text[0])
		abort();
	config_free(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *in, size_t len)
{
	char *text = malloc(len + 1);

	if (!text)
		abort();
	memcpy(text, in, len);
	text[len] = '\0';
	parse_uri(text);
	parse_options(text);
	free(text);
	return 0;
}
