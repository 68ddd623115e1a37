/*
 * Those who connect: see callers.h. Each caller's thread reads only his own connection, and ends
 * when he has spoken, his time is up, he was sent away (his connection is shut down), or all is
 * stopped.
 */
#include "migrate/callers.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "migrate/channel/channel.h"
#include "migrate/lanes.h"
#include "migrate/probe.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"

int caller_hello(struct reader *r, struct hello *h, struct err *e)
{
	char here[sizeof(h->arch)] = "";
	struct utsname u;
	struct record rec;

	if (reader_record(r, &rec, e))
		return -1;
	if (hello_decode(&rec, h, e))
		return err_context(e, "%s", r->channel->name);
	if (uname(&u) == 0)
		memcpy(here, u.machine, strnlen(u.machine, sizeof(here) - 1));
	if (strcmp(h->arch, here))
		return err_set(e, "%s: made on %s, this host is %s", r->channel->name, h->arch,
			       here);
	return 0;
}

/* What follows HELLO where a migration begins. */
static int caller_machine(struct reader *r, const struct hello *hello, struct tree *machine,
			  struct err *e)
{
	struct record rec;

	if (hello->role != ROLE_MAIN || !hello->lanes || hello->lanes > LANES_MAX)
		return err_set(e, "%s: not the beginning of a migration", r->channel->name);
	if (reader_expect(r, RECORD_MACHINE, &rec, e))
		return -1;
	if (tree_copy(machine, rec.body, rec.body_bytes, e))
		return err_context(e, "%s: the machine", r->channel->name);
	return 0;
}

int caller_begin(struct reader *r, struct hello *hello, struct tree *machine, struct err *e)
{
	return caller_hello(r, hello, e) || caller_machine(r, hello, machine, e) ? -1 : 0;
}

void heard_dismiss(struct heard *h, const char *why)
{
	struct writer w = { .channel = h->reader.channel };

	if (why)
		writer_record(&w, RECORD_CHECKED, why, strnlen(why, 500), NULL, 0, NULL);
	channel_close(h->reader.channel);
	reader_free(&h->reader);
	tree_free(&h->machine);
}

/* All that he has to say; 0 when he is the one who was waited for. */
static int hear_out(struct caller *c)
{
	struct heard *h = &c->heard;

	if (caller_hello(&h->reader, &h->hello, &c->why))
		return -1;
	if (!c->all->with_machine)
		return 0;
	if (h->hello.role != ROLE_PROBE)
		return caller_machine(&h->reader, &h->hello, &h->machine, &c->why);
	c->probe = probe_answer(&h->reader, &c->why) == 0;
	return -1;
}

static void *hear(void *arg)
{
	struct caller *c = arg;
	uint64_t one = 1;

	c->rc = hear_out(c);
	pthread_mutex_lock(&c->all->lock);
	c->spoken = true;
	pthread_mutex_unlock(&c->all->lock);
	while (write(c->all->told_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	return NULL;
}

/* One who measures has had his CHECKED: there is no second one. */
static bool was_answered(const struct caller *c)
{
	return c->all->with_machine && c->heard.hello.role == ROLE_PROBE;
}

static bool has_spoken(struct caller *c)
{
	bool spoken;

	pthread_mutex_lock(&c->all->lock);
	spoken = c->spoken;
	pthread_mutex_unlock(&c->all->lock);
	return spoken;
}

/* Waits for his thread; the slot is free then. */
static void let_go(struct caller *c)
{
	pthread_join(c->thread, NULL);
	c->there = false;
}

static void send_away(struct caller *c)
{
	bool spoken = has_spoken(c);

	if (!spoken)
		channel_shutdown(c->heard.reader.channel);
	let_go(c);
	heard_dismiss(&c->heard, spoken && !c->rc ? CALLERS_BUSY : NULL);
}

/* One who has said what he must: 0; others who have spoken are sent away. */
static int take_spoken(struct callers *cs, struct heard *out)
{
	for (unsigned int i = 0; i < CALLERS_MAX; i++) {
		struct caller *c = &cs->caller[i];

		if (!c->there || !has_spoken(c))
			continue;
		let_go(c);
		if (c->rc == 0) {
			*out = c->heard;
			channel_set_deadline(out->reader.channel, -1);
			return 0;
		}
		if (c->probe)
			log_verbose("a source has measured the link");
		else
			log_warn("a connection that is no migration was closed: %s", c->why.text);
		/* Who speaks in records is told why: another version, another architecture. */
		heard_dismiss(&c->heard,
			      c->heard.reader.sequence && !was_answered(c) ? c->why.text : NULL);
	}
	return -1;
}

/*
 * A free slot; where there is none, that of the one who has been silent for longest. NULL: all have
 * spoken just now, and are to be heard first.
 */
static struct caller *find_slot(struct callers *cs)
{
	struct caller *oldest = NULL;

	for (unsigned int i = 0; i < CALLERS_MAX; i++) {
		struct caller *c = &cs->caller[i];

		if (!c->there)
			return c;
		if (!has_spoken(c) && (!oldest || c->since_us < oldest->since_us))
			oldest = c;
	}
	if (oldest) {
		send_away(oldest);
		log_warn("a connection that said nothing was closed: too many others wait");
	}
	return oldest;
}

/* Whoever has connected, if he is still there. */
static int let_in(struct callers *cs, struct err *e)
{
	struct caller *c = find_slot(cs);
	int rc, fd;

	if (!c)
		return 0;
	fd = accept4(cs->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED))
		return 0;
	if (fd < 0)
		return err_errno(e, errno, "cannot accept a connection");
	*c = (struct caller){ .all = cs, .since_us = clock_us() };
	if (socket_channel(&c->heard.reader.channel, fd, "source", cs->stop_fd, e)) {
		close(fd);
		return -1;
	}
	channel_set_deadline(c->heard.reader.channel, cs->hello_ms);
	rc = pthread_create(&c->thread, NULL, hear, c);
	if (rc) {
		heard_dismiss(&c->heard, NULL);
		return err_errno(e, rc, "cannot start a thread");
	}
	pthread_setname_np(c->thread, "migrate-hello");
	c->there = true;
	return 0;
}

int callers_init(struct callers *cs, int listen_fd, int stop_fd, int hello_ms, bool with_machine,
		 struct err *e)
{
	memset(cs, 0, sizeof(*cs));
	cs->listen_fd = listen_fd;
	cs->stop_fd = stop_fd;
	cs->hello_ms = hello_ms;
	cs->with_machine = with_machine;
	cs->told_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (cs->told_fd < 0)
		return err_errno(e, errno, "cannot make an eventfd");
	pthread_mutex_init(&cs->lock, NULL);
	return 0;
}

int callers_next(struct callers *cs, int timeout_ms, struct heard *out, struct err *e)
{
	uint64_t end_us = clock_us() + (uint64_t)(timeout_ms > 0 ? timeout_ms : 0) * 1000, now, n;
	struct pollfd fds[3] = { { cs->listen_fd, POLLIN, 0 },
				 { cs->told_fd, POLLIN, 0 },
				 { cs->stop_fd, POLLIN, 0 } };
	int left_ms = timeout_ms, rc;

	while (take_spoken(cs, out)) {
		if (timeout_ms >= 0) {
			now = clock_us();
			left_ms = now < end_us ? (int)((end_us - now + 999) / 1000) : 0;
		}
		rc = poll(fds, 3, left_ms);
		if (rc < 0 && errno != EINTR)
			return err_errno(e, errno, "cannot wait for a connection");
		if (rc > 0 && fds[2].revents)
			return err_set(e, "cancelled");
		if (rc == 0)
			return err_set(e, "none came in time");
		if (rc > 0 && fds[1].revents)
			while (read(cs->told_fd, &n, sizeof(n)) < 0 && errno == EINTR)
				;
		if (rc > 0 && fds[0].revents && let_in(cs, e))
			return -1;
	}
	return 0;
}

void callers_free(struct callers *cs)
{
	for (unsigned int i = 0; i < CALLERS_MAX; i++)
		if (cs->caller[i].there)
			send_away(&cs->caller[i]);
	close(cs->told_fd);
	pthread_mutex_destroy(&cs->lock);
}
