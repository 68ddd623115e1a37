/*
 * The vCPU thread. The exit switch is flat: what a guest does comes in here, goes to a
 * bus, and back into KVM.
 */
#include "vmm/vcpu.h"

#include <errno.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "vmm/arch.h"
#include "vmm/base/clock.h"
#include "vmm/base/err.h"
#include "vmm/base/log.h"
#include "vmm/bus.h"
#include "vmm/dirty_log.h"
#include "vmm/kvm.h"
#include "vmm/memory.h"

#define KICK_SIGNAL SIGUSR1

/* A vCPU that has been in KVM_RUN for this long without failing has been in the guest. */
#define ENTRY_NS 300000u

#ifndef sigev_notify_thread_id /* the kernel's name; older C libraries do not have it */
#define sigev_notify_thread_id _sigev_un._tid
#endif

/*
 * The signal only has to interrupt KVM_RUN or a system call. The end of a slice may come just
 * before KVM_RUN; then the flag takes the thread out. (Code that kicks has set the flag before.)
 */
static void kicked(int signal, siginfo_t *info, void *context)
{
	struct kvm_run *run = info->si_value.sival_ptr;

	(void)signal;
	(void)context;
	if (info->si_code == SI_TIMER)
		__atomic_store_n(&run->immediate_exit, 1, __ATOMIC_RELAXED);
}

int vcpu_signal_init(struct err *e)
{
	struct sigaction action = { .sa_sigaction = kicked, .sa_flags = SA_SIGINFO };

	if (sigaction(KICK_SIGNAL, &action, NULL))
		return err_errno(e, errno, "cannot set up the vCPU signal");
	return 0;
}

int vcpu_init(struct vcpu *v, unsigned int index, const struct device_env *env, struct err *e)
{
	pthread_condattr_t attr;

	*v = (struct vcpu){ .index = index, .env = env, .fd = -1, .parked = true };
	pthread_mutex_init(&v->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&v->changed, &attr);
	pthread_condattr_destroy(&attr);
	v->fd = ioctl(env->kvm->vm_fd, KVM_CREATE_VCPU, (unsigned long)index);
	if (v->fd < 0)
		return err_errno(e, errno, "KVM cannot make vCPU %u", index);
	v->run_bytes = env->kvm->vcpu_map_bytes;
	v->run = mmap(NULL, v->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (v->run == MAP_FAILED) {
		v->run = NULL;
		return err_errno(e, errno, "cannot map vCPU %u", index);
	}
	return 0;
}

/* The vCPU asks the machine for something and stops by itself. */
static void request(struct vcpu *v, enum machine_request r)
{
	pthread_mutex_lock(&v->lock);
	v->want_run = false;
	v->run->immediate_exit = 1;
	pthread_mutex_unlock(&v->lock);
	v->env->request(v->env->machine, r);
}

/* Notes that KVM has run the vCPU, or cannot. */
static void note_entry(struct vcpu *v, bool entered)
{
	pthread_mutex_lock(&v->lock);
	if (entered)
		v->entered = true;
	else
		v->failed = true;
	pthread_cond_broadcast(&v->changed);
	pthread_mutex_unlock(&v->lock);
}

static void cannot_go_on(struct vcpu *v, const char *why)
{
	char where[160];

	note_entry(v, false);
	arch_vcpu_describe(v, where, sizeof(where));
	log_warn("vcpu%u cannot go on: %s; %s", v->index, why, where);
	request(v, REQUEST_FAILED);
}

static void system_event(struct vcpu *v)
{
	switch (v->run->system_event.type) {
	case KVM_SYSTEM_EVENT_SHUTDOWN:
		request(v, REQUEST_POWEROFF);
		break;
	case KVM_SYSTEM_EVENT_RESET:
		request(v, REQUEST_RESET);
		break;
	default:
		cannot_go_on(v, "the guest reported a crash");
		break;
	}
}

static void ring_full(struct vcpu *v)
{
	struct err e;

	if (dirty_log_harvest(v->env->log, v->index, &e) == 0) {
		v->slice_end_ns = 0; /* a good moment to look at its quota */
		return;
	}
	log_warn("%s", e.text);
	cannot_go_on(v, "KVM does not take its dirty ring back");
}

/* Most often KVM interprets kernel mode, and has met an instruction that it does not know. */
static void internal_error(struct vcpu *v)
{
	uint32_t suberror = v->run->internal.suberror;
	char why[192];

	if (suberror == KVM_INTERNAL_ERROR_EMULATION)
		snprintf(why, sizeof(why),
			 "this host's KVM cannot emulate an instruction of the guest; stock "
			 "kernels that "
			 "end so need another host or scripts/testbed (see `godwit doctor`)");
	else
		snprintf(why, sizeof(why), "KVM met an internal error (suberror %u)", suberror);
	cannot_go_on(v, why);
}

static void arch_exit(struct vcpu *v)
{
	char why[64];

	switch (arch_vcpu_exit(v)) {
	case ARCH_EXIT_DONE:
		break;
	case ARCH_EXIT_RESET:
		request(v, REQUEST_RESET);
		break;
	case ARCH_EXIT_UNKNOWN:
		snprintf(why, sizeof(why), "unknown exit %u from KVM", v->run->exit_reason);
		cannot_go_on(v, why);
		break;
	}
}

static void handle_exit(struct vcpu *v)
{
	struct kvm_run *run = v->run;
	char why[64];

	switch (run->exit_reason) {
	case KVM_EXIT_MMIO:
		bus_access(v->env->mmio_bus, run->mmio.phys_addr, run->mmio.data, run->mmio.len,
			   run->mmio.is_write);
		break;
	case KVM_EXIT_DIRTY_RING_FULL: /* only with dirty rings */
		ring_full(v);
		break;
	case KVM_EXIT_INTR:
		break;
	case KVM_EXIT_SYSTEM_EVENT:
		system_event(v);
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		internal_error(v);
		break;
	case KVM_EXIT_FAIL_ENTRY:
		snprintf(why, sizeof(why), "the processor refused to enter the guest (0x%llx)",
			 (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
		cannot_go_on(v, why);
		break;
	default:
		arch_exit(v);
		break;
	}
}

static bool should_run(struct vcpu *v)
{
	bool go_on;

	pthread_mutex_lock(&v->lock);
	go_on = v->want_run && !v->want_end;
	if (go_on)
		v->run->immediate_exit = 0; /* of a kick that was taken back */
	pthread_mutex_unlock(&v->lock);
	return go_on;
}

/* -- slices and naps -- */

/* 0: no signal. */
static void set_timer(struct vcpu *v, uint64_t at_ns)
{
	struct itimerspec t = { .it_value = clock_timespec(at_ns) };

	timer_settime(v->timer, TIMER_ABSTIME, &t, NULL);
}

/* With the lock held: naps as long as is owed, or until something else is wanted. */
static void nap(struct vcpu *v, uint64_t ns)
{
	uint64_t start = clock_ns(), napped;
	struct timespec end = clock_timespec(start + ns);

	while (v->want_run && !v->want_end && !v->limits_changed)
		if (pthread_cond_timedwait(&v->changed, &v->lock, &end) == ETIMEDOUT)
			break;
	napped = clock_ns() - start;
	throttle_napped(&v->throttle, napped);
	quota_passed(&v->quota, napped);
}

static uint64_t nap_due_ns(const struct vcpu *v)
{
	uint64_t throttle = throttle_nap_ns(&v->throttle), quota = quota_nap_ns(&v->quota);

	return throttle > quota ? throttle : quota;
}

/* With the lock held: takes new limits over; false if there are no limits any more. */
static bool take_limits(struct vcpu *v)
{
	if (v->limits_changed) {
		v->limits_changed = false;
		throttle_set(&v->throttle, v->throttle_permille);
		quota_set(&v->quota, v->dirty_bytes_per_s);
		__atomic_store_n(&v->limited, v->throttle_permille || v->dirty_bytes_per_s,
				 __ATOMIC_RELAXED);
	}
	return v->limited;
}

/* Pages that it has dirtied since its slice began; 0 if there is no dirty limit. */
static uint64_t dirtied_pages(struct vcpu *v)
{
	uint64_t before = v->dirty_pages;

	if (!v->quota.bytes_per_s)
		return 0;
	v->dirty_pages = dirty_log_dirtied(v->env->log, v->index);
	return v->dirty_pages - before;
}

static void begin_slice(struct vcpu *v)
{
	uint64_t throttle = throttle_slice_ns(&v->throttle), quota = quota_slice_ns(&v->quota);

	dirtied_pages(v);
	pthread_mutex_lock(&v->lock);
	if (v->want_run && !v->want_end && !v->limits_changed)
		v->run->immediate_exit = 0; /* of a slice that is over */
	pthread_mutex_unlock(&v->lock);
	v->slice_begun = true;
	v->ran_ns = clock_ns_of(CLOCK_THREAD_CPUTIME_ID);
	v->slice_start_ns = clock_ns();
	v->slice_end_ns = v->slice_start_ns + (throttle < quota ? throttle : quota);
	set_timer(v, v->slice_end_ns);
}

/* Accounts for the slice, if there was one. */
static void account(struct vcpu *v)
{
	uint64_t ran, wall;

	if (!v->slice_begun)
		return;
	ran = clock_ns_of(CLOCK_THREAD_CPUTIME_ID) - v->ran_ns;
	wall = clock_ns() - v->slice_start_ns;
	throttle_ran(&v->throttle, ran, wall);
	quota_spent(&v->quota, dirtied_pages(v) * PAGE_SIZE, ran);
	quota_passed(&v->quota, wall);
	v->slice_begun = false;
}

static bool slice_goes_on(struct vcpu *v)
{
	bool on;

	pthread_mutex_lock(&v->lock);
	on = v->slice_begun && !v->limits_changed && clock_ns() < v->slice_end_ns;
	pthread_mutex_unlock(&v->lock);
	return on;
}

/*
 * Before each entry into KVM: where a slice is over, what is owed is napped, and the next begins.
 * Never leaves the running state itself: an exit may be half done, which only KVM_RUN completes.
 * The lock is not held while the rings are asked, so that nobody who wants the vCPU waits for that.
 */
static void pace(struct vcpu *v)
{
	uint64_t due;
	bool limited;

	if (slice_goes_on(v))
		return;
	account(v);
	pthread_mutex_lock(&v->lock);
	do {
		limited = take_limits(v);
		due = limited ? nap_due_ns(v) : 0;
		if (due)
			nap(v, due);
	} while (v->limits_changed);
	pthread_mutex_unlock(&v->lock);
	if (limited)
		begin_slice(v);
	else
		set_timer(v, 0);
}

/* Time while it is parked does not count. */
static void end_slice(struct vcpu *v)
{
	if (!v->slice_begun)
		return;
	set_timer(v, 0);
	v->slice_begun = false;
}

static void note_entering(struct vcpu *v)
{
	pthread_mutex_lock(&v->lock);
	v->entering_ns = clock_ns();
	pthread_mutex_unlock(&v->lock);
}

/* An interrupted KVM_RUN may have ended before it reached the guest, unless it took ENTRY_NS. */
static bool was_inside(const struct vcpu *v)
{
	return clock_ns() - v->entering_ns >= ENTRY_NS;
}

/* Runs the guest until KVM_RUN says EINTR and the vCPU is to be parked. */
static void run(struct vcpu *v)
{
	bool entered = false;
	char why[96];
	int error;

	v->used = true;
	/* Before the first start as well: the guest may have run elsewhere. */
	arch_vcpu_was_parked(v);
	for (;;) {
		if (__atomic_load_n(&v->limited, __ATOMIC_ACQUIRE))
			pace(v);
		if (!entered)
			note_entering(v);
		if (ioctl(v->fd, KVM_RUN, 0) == 0) {
			/* A processor that refuses at once has run nothing of the guest. */
			if (!entered &&
			    (v->run->exit_reason != KVM_EXIT_FAIL_ENTRY || was_inside(v)))
				note_entry(v, entered = true);
			handle_exit(v);
			continue;
		}
		switch (errno) {
		case EINTR:
			if (!entered && was_inside(v))
				note_entry(v, entered = true);
			if (!should_run(v))
				return;
			break;
		case EAGAIN: /* a vCPU that waits for INIT or SIPI was woken by something else */
			break;
		default:
			/* KVM goes into the guest many times in one call; only with these words it
			 * says that it has not. */
			error = errno;
			if (!entered && (was_inside(v) || (error != EINVAL && error != ENOEXEC)))
				note_entry(v, entered = true);
			snprintf(why, sizeof(why), "KVM_RUN failed (errno %d)", error);
			cannot_go_on(v, why);
			return; /* nothing is under way, and KVM would only say so again */
		}
	}
}

static void *vcpu_thread(void *arg)
{
	struct vcpu *v = arg;

	pthread_mutex_lock(&v->lock);
	v->thread_id = gettid();
	pthread_cond_broadcast(&v->changed);
	while (!v->want_end) {
		if (v->job) {
			void (*job)(struct vcpu *, void *) = v->job;

			pthread_mutex_unlock(&v->lock);
			job(v, v->job_arg);
			pthread_mutex_lock(&v->lock);
			v->job = NULL;
			pthread_cond_broadcast(&v->changed);
		} else if (v->want_run) {
			v->parked = false;
			v->run->immediate_exit = 0;
			pthread_mutex_unlock(&v->lock);
			run(v);
			end_slice(v);
			pthread_mutex_lock(&v->lock);
			v->parked = true;
			pthread_cond_broadcast(&v->changed);
		} else {
			pthread_cond_wait(&v->changed, &v->lock);
		}
	}
	pthread_mutex_unlock(&v->lock);
	return NULL;
}

int vcpu_start(struct vcpu *v, struct err *e)
{
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = KICK_SIGNAL };
	char name[16];
	int rc = pthread_create(&v->thread, NULL, vcpu_thread, v);

	if (rc)
		return err_errno(e, rc, "cannot start the thread of vCPU %u", v->index);
	v->thread_started = true;
	snprintf(name, sizeof(name), "vcpu%u", v->index);
	pthread_setname_np(v->thread, name);
	pthread_mutex_lock(&v->lock);
	while (!v->thread_id)
		pthread_cond_wait(&v->changed, &v->lock);
	pthread_mutex_unlock(&v->lock);
	event.sigev_notify_thread_id = v->thread_id;
	event.sigev_value.sival_ptr = v->run;
	if (timer_create(CLOCK_MONOTONIC, &event, &v->timer))
		return err_errno(e, errno, "cannot make the timer of vCPU %u", v->index);
	v->timer_made = true;
	return 0;
}

/* With the lock held: makes the thread look soon at what is wanted, whatever it is doing. */
static void kick(struct vcpu *v)
{
	pthread_cond_broadcast(&v->changed);
	if (v->parked)
		return;
	/* The flag catches a thread that is just about to enter KVM, the signal one inside. */
	v->run->immediate_exit = 1;
	pthread_kill(v->thread, KICK_SIGNAL);
}

void vcpu_free(struct vcpu *v)
{
	if (v->thread_started) {
		pthread_mutex_lock(&v->lock);
		v->want_end = true;
		kick(v);
		pthread_mutex_unlock(&v->lock);
		pthread_join(v->thread, NULL);
	}
	if (v->timer_made)
		timer_delete(v->timer);
	if (v->run)
		munmap(v->run, v->run_bytes);
	if (v->fd >= 0)
		close(v->fd);
	pthread_cond_destroy(&v->changed);
	pthread_mutex_destroy(&v->lock);
}

void vcpu_resume(struct vcpu *v)
{
	pthread_mutex_lock(&v->lock);
	v->want_run = true;
	v->entered = v->failed = false;
	v->entering_ns = 0;
	pthread_cond_broadcast(&v->changed);
	pthread_mutex_unlock(&v->lock);
}

void vcpu_await_entry(struct vcpu *v, uint64_t end_ns)
{
	struct timespec end = clock_timespec(end_ns);

	pthread_mutex_lock(&v->lock);
	while (v->want_run && !v->entered && !v->failed)
		if (pthread_cond_timedwait(&v->changed, &v->lock, &end) == ETIMEDOUT)
			break;
	pthread_mutex_unlock(&v->lock);
}

int vcpu_is_entered(struct vcpu *v)
{
	int rc;

	pthread_mutex_lock(&v->lock);
	if (v->failed)
		rc = v->entered ? -2 : -1;
	else if (v->want_run)
		rc = v->entered;
	else
		rc = v->entering_ns ? 1 : 2;
	pthread_mutex_unlock(&v->lock);
	return rc;
}

void vcpu_prove_entry(struct vcpu *v)
{
	pthread_mutex_lock(&v->lock);
	/* Without the flag: KVM_RUN goes on at once. */
	if (!v->parked && !v->entered && v->entering_ns && clock_ns() - v->entering_ns > ENTRY_NS)
		pthread_kill(v->thread, KICK_SIGNAL);
	pthread_mutex_unlock(&v->lock);
}

void vcpu_park(struct vcpu *v)
{
	pthread_mutex_lock(&v->lock);
	v->want_run = false;
	kick(v);
	pthread_mutex_unlock(&v->lock);
}

/* With the lock held: the thread takes new limits over at once. */
static void limits_change(struct vcpu *v)
{
	v->limits_changed = true;
	__atomic_store_n(&v->limited, true, __ATOMIC_RELEASE);
	kick(v);
}

void vcpu_throttle(struct vcpu *v, unsigned int permille)
{
	pthread_mutex_lock(&v->lock);
	if (permille > THROTTLE_MAX_PERMILLE)
		permille = THROTTLE_MAX_PERMILLE;
	if (v->throttle_permille != permille) {
		v->throttle_permille = permille;
		limits_change(v);
	}
	pthread_mutex_unlock(&v->lock);
}

void vcpu_dirty_limit(struct vcpu *v, uint64_t bytes_per_s)
{
	pthread_mutex_lock(&v->lock);
	if (v->dirty_bytes_per_s != bytes_per_s) {
		v->dirty_bytes_per_s = bytes_per_s;
		limits_change(v);
	}
	pthread_mutex_unlock(&v->lock);
}

void vcpu_wait(struct vcpu *v)
{
	pthread_mutex_lock(&v->lock);
	while (!v->parked || v->job)
		pthread_cond_wait(&v->changed, &v->lock);
	pthread_mutex_unlock(&v->lock);
}

void vcpu_job(struct vcpu *v, void (*job)(struct vcpu *v, void *arg), void *arg)
{
	pthread_mutex_lock(&v->lock);
	v->job = job;
	v->job_arg = arg;
	pthread_cond_broadcast(&v->changed);
	pthread_mutex_unlock(&v->lock);
}
