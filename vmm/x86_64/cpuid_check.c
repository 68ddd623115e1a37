/*
 * Whether a guest's CPUID can be kept here: each feature that its table promises must be among
 * those that KVM supports on this host. Names are those of Linux' /proc/cpuinfo, so that a user
 * can compare two hosts. Pure; constant tables only; the owner's thread.
 *
 * Not compared: what KVM makes itself on every host (topology, APIC ids, TSC deadline timer,
 * hypervisor bit), the CPU's family and name, and numbers that only inform (caches, TLBs).
 */
#include <inttypes.h>
#include <stddef.h>
#include <stdbool.h>
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/x86_64/cpuid.h"
#include "vmm/x86_64/names.h"

/* One word of feature bits. */
struct word {
	uint32_t function, index;
	enum cpuid_reg reg;
	uint32_t ignored;
	const char *names; /* from bit 0 on; "-" or the end: no name, told by its number */
};

static const struct word words[] = {
	{ 0x1, 0, CPUID_ECX, 1u << 21 | 1u << 24 | 1u << 27 | 1u << 31,
	  "pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm "
	  "- pcid dca sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave osxsave avx "
	  "f16c rdrand hypervisor" },
	{ 0x1, 0, CPUID_EDX, 1u << 28,
	  "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov "
	  "pat pse36 pn clflush - dts acpi mmx fxsr sse sse2 ss ht tm ia64 pbe" },
	{ 0x6, 0, CPUID_EAX, 0, "dtherm ida arat" },
	{ 0x7, 0, CPUID_EBX, 0,
	  "fsgsbase tsc_adjust sgx bmi1 hle avx2 fdp_excptn_only smep bmi2 erms invpcid rtm cqm "
	  "zero_fcs_fds mpx rdt_a avx512f avx512dq rdseed adx smap avx512ifma - clflushopt clwb "
	  "intel_pt avx512pf avx512er avx512cd sha_ni avx512bw avx512vl" },
	{ 0x7, 0, CPUID_ECX, 1u << 4,
	  "prefetchwt1 avx512vbmi umip pku ospke waitpkg avx512_vbmi2 shstk gfni vaes vpclmulqdq "
	  "avx512_vnni avx512_bitalg tme avx512_vpopcntdq - la57 - - - - - rdpid - "
	  "bus_lock_detect cldemote - movdiri movdir64b enqcmd sgx_lc pks" },
	{ 0x7, 0, CPUID_EDX, 0,
	  "- - avx512_4vnniw avx512_4fmaps fsrm - - - avx512_vp2intersect - md_clear - - - "
	  "serialize - tsxldtrk - pconfig arch_lbr ibt - amx_bf16 avx512_fp16 amx_tile amx_int8 "
	  "ibrs stibp flush_l1d arch_capabilities - ssbd" },
	{ 0x7, 1, CPUID_EAX, 0,
	  "sha512 sm3 sm4 - avx_vnni avx512_bf16 - cmpccxadd - - fzrm fsrs fsrc - - - - fred lkgs "
	  "wrmsrns - amx_fp16 - avx_ifma - - lam" },
	{ 0x7, 1, CPUID_EBX, 0, "" },
	{ 0x7, 1, CPUID_EDX, 0, "- - - - avx_vnni_int8 avx_ne_convert" },
	{ 0x7, 2, CPUID_EDX, 0, "" },
	{ 0xd, 0, CPUID_EAX, 0,
	  "xstate_x87 xstate_sse xstate_avx xstate_bndregs xstate_bndcsr xstate_opmask "
	  "xstate_zmm_hi256 xstate_hi16_zmm - xstate_pkru" },
	{ 0xd, 0, CPUID_EDX, 0, "" },
	{ 0xd, 1, CPUID_EAX, 0, "xsaveopt xsavec xgetbv1 xsaves xfd" },
	{ 0xd, 1, CPUID_ECX, 0, "" },
	{ 0xd, 1, CPUID_EDX, 0, "" },
	{ 0x40000001, 0, CPUID_EAX, 0,
	  "kvmclock_old kvm_nopiodelay kvm_mmu kvmclock kvm_asyncpf kvm_steal_time kvm_pv_eoi "
	  "kvm_pv_unhalt - kvm_pv_tlb_flush kvm_asyncpf_vmexit kvm_pv_ipi kvm_poll_control "
	  "kvm_pv_sched_yield kvm_asyncpf_int kvm_msi_ext_dest_id kvm_hc_map_gpa_range "
	  "kvm_migration_control - - - - - - kvmclock_stable_bit" },
	/* CmpLegacy is ours. */
	{ 0x80000001, 0, CPUID_ECX, 1u << 1,
	  "lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs "
	  "xop skinit wdt - lwp fma4 tce - nodeid_msr - tbm topoext perfctr_core perfctr_nb - "
	  "bpext ptsc perfctr_llc mwaitx" },
	/* AMD repeats leaf 1 here: those bits were compared there. */
	{ 0x80000001, 0, CPUID_EDX, 0x0183f3ff,
	  "- - - - - - - - - - - syscall - - - - - - - mp nx - mmxext - - fxsr_opt pdpe1gb rdtscp "
	  "- lm 3dnowext 3dnow" },
	{ 0x80000007, 0, CPUID_EDX, 0, "- - - - - - - - nonstop_tsc" },
	{ 0x80000008, 0, CPUID_EBX, 0,
	  "clzero irperf xsaveerptr - rdpru - - - - wbnoinvd - - ibpb - ibrs stibp - "
	  "stibp_always_on - - - - - amd_ppin ssbd virt_ssbd ssb_no" },
	{ 0x80000021, 0, CPUID_EAX, 0,
	  "no_nested_data_bp - lfence_rdtsc - - - null_sel_clr_base - autoibrs no_smm_ctl_msr - - "
	  "- - - - - - - - - - - - - - - sbpb ibpb_brtype srso_no srso_user_kernel_no" },
	{ 0x80000021, 0, CPUID_ECX, 0, "" },
};

static const struct kvm_cpuid_entry2 *find(const struct cpuid_table *c, uint32_t function,
					   uint32_t index)
{
	for (uint32_t i = 0; i < c->n && i < CPUID_ENTRIES_MAX; i++) {
		if (c->entries[i].function == function && c->entries[i].index == index)
			return &c->entries[i];
	}
	return NULL;
}

uint32_t cpuid_word(const struct cpuid_table *c, uint32_t function, uint32_t index,
		    enum cpuid_reg reg)
{
	const struct kvm_cpuid_entry2 *l = find(c, function, index);

	if (!l)
		return 0;
	return reg == CPUID_EAX	  ? l->eax
	       : reg == CPUID_EBX ? l->ebx
	       : reg == CPUID_ECX ? l->ecx
				  : l->edx;
}

static void check_word(const struct word *w, const struct cpuid_table *c,
		       const struct cpuid_table *supported, struct x86_names *missing)
{
	static const char regs[4][4] = { "eax", "ebx", "ecx", "edx" };
	uint32_t bits = cpuid_word(c, w->function, w->index, w->reg) &
			~cpuid_word(supported, w->function, w->index, w->reg) & ~w->ignored;
	const char *name;
	int len;

	for (unsigned int i = 0; i < 32; i++) {
		if (!(bits >> i & 1))
			continue;
		len = x86_name_of(w->names, i, &name);
		if (len)
			x86_names_add(missing, "%.*s", len, name);
		else if (w->function == 0x7 || w->function == 0xd)
			x86_names_add(missing, "cpuid %x.%u %s bit %u", w->function, w->index,
				      regs[w->reg], i);
		else
			x86_names_add(missing, "cpuid %x %s bit %u", w->function, regs[w->reg], i);
	}
}

/* The areas of XSAVE components lie where the CPU puts them: an image moves only between equals. */
static void check_xsave(const struct cpuid_table *c, const struct cpuid_table *supported,
			struct x86_names *missing)
{
	for (uint32_t i = 0; i < c->n && i < CPUID_ENTRIES_MAX; i++) {
		const struct kvm_cpuid_entry2 *l = &c->entries[i], *h;

		if (l->function != 0xd || l->index < 2)
			continue;
		h = find(supported, 0xd, l->index);
		if (h && (h->eax != l->eax || h->ebx != l->ebx))
			x86_names_add(missing,
				      "XSAVE component %u of %u bytes at %u (here %u at %u)",
				      l->index, l->eax, l->ebx, h->eax, h->ebx);
	}
}

/* Leaves above what this host knows; topology and timing are made by us, wherever the guest is. */
static void check_levels(const struct cpuid_table *c, const struct cpuid_table *supported,
			 struct x86_names *missing)
{
	static const uint32_t bases[] = { 0, 0x80000000 };

	for (unsigned int k = 0; k < sizeof(bases) / sizeof(bases[0]); k++) {
		uint32_t wanted = 0, here = cpuid_word(supported, bases[k], 0, CPUID_EAX);

		for (uint32_t i = 0; i < c->n && i < CPUID_ENTRIES_MAX; i++) {
			uint32_t f = c->entries[i].function;

			if (f >> 16 == bases[k] >> 16 && f > wanted && f != 0xb && f != 0x1f &&
			    f != 0x8000001d && f != 0x8000001e)
				wanted = f;
		}
		if (wanted > here)
			x86_names_add(missing, "cpuid level 0x%x (here 0x%x)", wanted, here);
	}
}

static void check_address_bits(const struct cpuid_table *c, const struct cpuid_table *supported,
			       struct x86_names *missing)
{
	uint32_t wanted = cpuid_word(c, 0x80000008, 0, CPUID_EAX);
	uint32_t here = cpuid_word(supported, 0x80000008, 0, CPUID_EAX);

	if ((wanted & 0xff) > (here & 0xff))
		x86_names_add(missing, "%u bits of physical address (here %u)", wanted & 0xff,
			      here & 0xff);
	if ((wanted >> 8 & 0xff) > (here >> 8 & 0xff))
		x86_names_add(missing, "%u bits of linear address (here %u)", wanted >> 8 & 0xff,
			      here >> 8 & 0xff);
}

/* "GenuineIntel" and the like; never anything but printable text, whatever the table holds. */
static void vendor(const struct cpuid_table *c, char text[13])
{
	const uint32_t v[3] = { cpuid_word(c, 0, 0, CPUID_EBX), cpuid_word(c, 0, 0, CPUID_EDX),
				cpuid_word(c, 0, 0, CPUID_ECX) };

	memcpy(text, v, 12);
	text[12] = 0;
	for (unsigned int i = 0; i < 12; i++) {
		if (text[i] < ' ' || text[i] > '~')
			text[i] = '?';
	}
}

int cpuid_check(const struct cpuid_table *c, const struct cpuid_table *supported, struct err *e)
{
	struct x86_names missing = { .len = 0 };
	char theirs[13], ours[13], more[32];

	vendor(c, theirs);
	vendor(supported, ours);
	if (strcmp(theirs, ours))
		return err_set(e, "the guest was made for a CPU of %s, this host's is of %s",
			       theirs, ours);
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		check_word(&words[i], c, supported, &missing);
	check_xsave(c, supported, &missing);
	check_levels(c, supported, &missing);
	check_address_bits(c, supported, &missing);
	if (!missing.len)
		return 0;
	return err_set(e, "the guest uses CPU features that this host lacks: %s%s", missing.text,
		       x86_names_more(&missing, more));
}
