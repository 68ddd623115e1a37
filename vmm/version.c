/*
 * The version: the one file that is compiled again when it changes. The Makefile includes
 * GODWIT_VERSION from a generated header. Pure; any thread.
 */
#include "vmm/version.h"

#ifndef GODWIT_VERSION
#define GODWIT_VERSION "unknown"
#endif

const char *godwit_version(void)
{
	return GODWIT_VERSION;
}
