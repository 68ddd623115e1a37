/*
 * The dirty log over KVM's bitmap or its dirty rings. The invariant: a bit is in `bits` only if the
 * write that set it is seen by whoever reads the page after having fetched or cleared the bit.
 */
#include "vmm/dirty_log.h"

#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/base/bitmap.h"
#include "vmm/base/err.h"
#include "vmm/kvm.h"

static uint64_t words_of(const struct memory_block *b)
{
	return BITMAP_WORDS(b->size / PAGE_SIZE);
}

int dirty_log_init(struct dirty_log *l, struct kvm *kvm, struct memory *memory,
		   unsigned int n_vcpus, struct err *e)
{
	*l = (struct dirty_log){ .kvm = kvm, .memory = memory, .has_rings = kvm->ring_entries };
	pthread_mutex_init(&l->lock, NULL);
	return l->has_rings ? dirty_rings_init(&l->rings, kvm, n_vcpus, e) : 0;
}

int dirty_log_add_vcpu(struct dirty_log *l, int vcpu_fd, struct err *e)
{
	return l->has_rings ? dirty_rings_add(&l->rings, vcpu_fd, e) : 0;
}

static void free_bits(struct dirty_log *l)
{
	unsigned int i;

	for (i = 0; i < MEMORY_BLOCKS_MAX; i++) {
		free(l->bits[i]);
		l->bits[i] = NULL;
	}
}

void dirty_log_free(struct dirty_log *l)
{
	if (!l->memory)
		return;
	free_bits(l);
	if (l->has_rings)
		dirty_rings_free(&l->rings);
	pthread_mutex_destroy(&l->lock);
	l->memory = NULL;
}

static int alloc_bits(struct dirty_log *l, struct err *e)
{
	unsigned int i;
	uint64_t page;

	for (i = 0; i < l->memory->n_blocks; i++) {
		const struct memory_block *b = &l->memory->blocks[i];

		l->bits[i] = calloc(words_of(b), sizeof(uint64_t));
		if (!l->bits[i]) {
			free_bits(l);
			return err_set(e, "out of memory");
		}
		/* As KVM's bitmap is at first. */
		for (page = 0; l->has_rings && page < b->size / PAGE_SIZE; page++)
			bitmap_set(l->bits[i], page);
	}
	return 0;
}

int dirty_log_start(struct dirty_log *l, struct err *e)
{
	int rc;

	pthread_mutex_lock(&l->lock);
	rc = alloc_bits(l, e);
	pthread_mutex_unlock(&l->lock);
	if (rc)
		return -1;
	/* Marks first: nothing that is written from here on may escape both. */
	memory_marks_start(l->memory);
	if (memory_attach(l->memory, l->kvm, true, e)) {
		dirty_log_stop(l);
		return -1;
	}
	return 0;
}

/* Called by dirty_rings_take. */
static void note_page(void *arg, uint32_t slot, uint64_t page)
{
	struct dirty_log *l = arg;

	/* Without bits these are the last pages of a log that has ended. */
	if (slot < l->memory->n_blocks && l->bits[slot] &&
	    page < l->memory->blocks[slot].size / PAGE_SIZE)
		bitmap_set(l->bits[slot], page);
}

static int harvest_all(struct dirty_log *l, struct err *e)
{
	uint64_t n = 0;
	unsigned int i;

	for (i = 0; i < l->rings.n_rings; i++)
		n += dirty_rings_take(&l->rings, i, note_page, l);
	return dirty_rings_give_back(&l->rings, n, e);
}

void dirty_log_stop(struct dirty_log *l)
{
	memory_attach(l->memory, l->kvm, false, NULL);
	memory_marks_stop(l->memory);
	pthread_mutex_lock(&l->lock);
	/* What is still in the rings would be taken for the next log's. */
	if (l->has_rings)
		harvest_all(l, NULL);
	free_bits(l);
	pthread_mutex_unlock(&l->lock);
}

/* There is nothing to ask KVM for: the bits go over from ours into `bits`. */
static int fetch_rings(struct dirty_log *l, unsigned int block, uint64_t *bits, struct err *e)
{
	uint64_t words = words_of(&l->memory->blocks[block]), i;
	int rc;

	pthread_mutex_lock(&l->lock);
	rc = harvest_all(l, e);
	for (i = 0; i < words && !rc; i++) {
		bits[i] |= l->bits[block][i];
		l->bits[block][i] = 0;
	}
	pthread_mutex_unlock(&l->lock);
	return rc;
}

static int fetch_bitmap(struct dirty_log *l, unsigned int block, uint64_t *bits, struct err *e)
{
	struct kvm_dirty_log log = { .slot = block, .dirty_bitmap = l->bits[block] };
	uint64_t words = words_of(&l->memory->blocks[block]), i;

	if (kvm_vm_ioctl(l->kvm, KVM_GET_DIRTY_LOG, &log, "KVM_GET_DIRTY_LOG", e) < 0)
		return -1;
	for (i = 0; i < words; i++)
		bits[i] |= l->bits[block][i];
	return 0;
}

int dirty_log_fetch(struct dirty_log *l, unsigned int block, uint64_t *bits, struct err *e)
{
	int rc = l->has_rings ? fetch_rings(l, block, bits, e) : fetch_bitmap(l, block, bits, e);

	if (rc)
		return -1;
	memory_marks_take(l->memory, block, bits);
	return 0;
}

int dirty_log_clear(struct dirty_log *l, unsigned int block, uint64_t first, uint64_t n,
		    const uint64_t *bits, struct err *e)
{
	struct kvm_clear_dirty_log clear = {
		.slot = block,
		.first_page = first,
		.num_pages = (uint32_t)n,
		.dirty_bitmap = (void *)(uintptr_t)bits,
	};
	uint64_t i;

	if (l->has_rings) {
		/* What is in the log has been protected again: the read that follows sees it. */
		pthread_mutex_lock(&l->lock);
		for (i = 0; i < BITMAP_WORDS(n); i++)
			l->bits[block][first / 64 + i] &= ~bits[i];
		pthread_mutex_unlock(&l->lock);
		return 0;
	}
	if (!l->kvm->manual_protect)
		return 0;
	if (kvm_vm_ioctl(l->kvm, KVM_CLEAR_DIRTY_LOG, &clear, "KVM_CLEAR_DIRTY_LOG", e) < 0)
		return -1;
	return 0;
}

int dirty_log_harvest(struct dirty_log *l, unsigned int vcpu, struct err *e)
{
	int rc;

	pthread_mutex_lock(&l->lock);
	rc = dirty_rings_give_back(&l->rings, dirty_rings_take(&l->rings, vcpu, note_page, l), e);
	pthread_mutex_unlock(&l->lock);
	return rc;
}

uint64_t dirty_log_dirtied(struct dirty_log *l, unsigned int vcpu)
{
	uint64_t n;

	if (!l->has_rings || vcpu >= l->rings.n_rings)
		return 0;
	pthread_mutex_lock(&l->lock);
	n = dirty_rings_count(&l->rings, vcpu);
	pthread_mutex_unlock(&l->lock);
	return n;
}
