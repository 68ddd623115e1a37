/*
 * Ends a test program that starts a thread although the Makefile lists it as one that does not: the
 * thread sanitizer would never see it. Used by the linker option --wrap=pthread_create, for those
 * programs only.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
			  void *arg);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
			  void *arg)
{
	(void)thread, (void)attr, (void)run, (void)arg;
	fputs("this program starts a thread: take it out of one_thread in the Makefile\n", stderr);
	abort();
}
