/*
 * What a guest knows of its CPU by MSRs: see features.h. Constant tables, no state.
 */
#include "vmm/x86_64/features.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <string.h>

#include "vmm/base/err.h"
#include "vmm/kvm.h"
#include "vmm/tree.h"
#include "vmm/x86_64/arch_internal.h"
#include "vmm/x86_64/names.h"

#define BIT(n) (1ull << (n))

/* One in the machine tree: big endian. */
#define NUMBER_BYTES 4
#define ENTRY_BYTES  12

struct feature_msr {
	uint32_t number;
	uint64_t ignored;
	const char *names; /* from bit 0 on */
};

static const struct feature_msr known[X86_FEATURES_MAX] = {
	/*
	 * IA32_ARCH_CAPABILITIES, in Intel's names. Not compared: RSBA and RRSBA, which tell of a
	 * weakness, and what matters only to a guest with guests of its own (bits 3, 6).
	 */
	{ 0x10a, BIT(2) | BIT(3) | BIT(6) | BIT(19),
	  "RDCL_NO IBRS_ALL RSBA SKIP_L1DFL_VMENTRY SSB_NO MDS_NO PSCHANGE_MC_NO TSX_CTRL TAA_NO "
	  "MCU_CONTROL MISC_PACKAGE_CTLS ENERGY_FILTERING_CTL DOITM SBDR_SSDP_NO FBSDP_NO PSDP_NO "
	  "MCU_ENUM FB_CLEAR FB_CLEAR_CTRL RRSBA BHI_NO XAPIC_DISABLE_STATUS MCU_EXTENDED_SERVICE "
	  "OVERCLOCKING_STATUS PBRSB_NO GDS_CTRL GDS_NO RFDS_NO RFDS_CLEAR IGN_UMONITOR MON_UMON "
	  "- - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - ITS_NO" },
	/* AMD's DE_CFG */
	{ 0xc0011029, 0, "- LFENCE_SERIALIZE" },
};

static const struct feature_msr *find_known(uint32_t number)
{
	for (size_t i = 0; i < X86_FEATURES_MAX; i++)
		if (known[i].number == number)
			return &known[i];
	return NULL;
}

bool x86_is_feature(uint32_t number)
{
	return find_known(number) != NULL;
}

static void add(struct x86_features *f, uint32_t number, uint64_t value)
{
	if (f->n < X86_FEATURES_MAX) {
		f->numbers[f->n] = number;
		f->values[f->n++] = value;
	}
}

static uint64_t value_of(const struct x86_features *f, uint32_t number)
{
	for (uint32_t i = 0; i < f->n; i++)
		if (f->numbers[i] == number)
			return f->values[i];
	return 0;
}

int x86_features_of_host(const struct kvm *kvm, struct x86_features *out, struct err *e)
{
	union {
		struct kvm_msrs head; /* its entry follows it */
		uint8_t bytes[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
	} one;
	int rc;

	*out = (struct x86_features){ 0 };
	if (!kvm_has(kvm, KVM_CAP_GET_MSR_FEATURES))
		return 0;
	for (size_t i = 0; i < X86_FEATURES_MAX; i++) {
		memset(&one, 0, sizeof(one));
		one.head.nmsrs = 1;
		one.head.entries[0].index = known[i].number;
		/* Those that this CPU has not are no error: KVM reads none. */
		rc = kvm_ioctl(kvm, kvm->dev_fd, KVM_GET_MSRS, &one);
		if (rc < 0)
			return err_errno(e, errno,
					 "KVM does not tell the features of its CPU "
					 "(KVM_GET_MSRS)");
		if (rc == 1)
			add(out, known[i].number, one.head.entries[0].data);
	}
	return 0;
}

void x86_features_for_guest(const struct x86_features *host, const struct cpuid_table *c,
			    struct x86_features *out)
{
	*out = (struct x86_features){ 0 };
	for (uint32_t i = 0; i < host->n; i++)
		if (!x86_msr_is_hidden(c, host->numbers[i]))
			add(out, host->numbers[i], host->values[i]);
}

int x86_features_to_tree(const struct x86_features *f, struct tree *t, struct err *e)
{
	uint8_t bytes[X86_FEATURES_MAX * ENTRY_BYTES];

	for (uint32_t i = 0; i < f->n; i++) {
		uint32_t number = htobe32(f->numbers[i]);
		uint64_t value = htobe64(f->values[i]);

		memcpy(bytes + i * ENTRY_BYTES, &number, sizeof(number));
		memcpy(bytes + i * ENTRY_BYTES + NUMBER_BYTES, &value, sizeof(value));
	}
	return tree_set_bytes(t, "/cpus", "feature-msrs", bytes, f->n * ENTRY_BYTES, e);
}

int x86_features_from_tree(const struct tree *t, struct x86_features *out, struct err *e)
{
	const void *bytes;
	uint32_t number;
	uint64_t value;
	size_t len;

	*out = (struct x86_features){ 0 };
	if (!tree_has(t, "/cpus", "feature-msrs"))
		return 0;
	if (tree_bytes(t, "/cpus", "feature-msrs", &bytes, &len, e))
		return -1;
	if (len % ENTRY_BYTES || len / ENTRY_BYTES > X86_FEATURES_MAX)
		return err_set(e, "/cpus: feature-msrs has %zu bytes, expected up to %d MSRs of %d",
			       len, X86_FEATURES_MAX, ENTRY_BYTES);
	for (size_t i = 0; i < len / ENTRY_BYTES; i++) {
		memcpy(&number, (const uint8_t *)bytes + i * ENTRY_BYTES, sizeof(number));
		memcpy(&value, (const uint8_t *)bytes + i * ENTRY_BYTES + NUMBER_BYTES,
		       sizeof(value));
		number = be32toh(number);
		if (!x86_is_feature(number))
			return err_set(e,
				       "/cpus: feature-msrs has MSR 0x%" PRIx32
				       ", which this version does not know",
				       number);
		add(out, number, be64toh(value));
	}
	return 0;
}

static void name_missing(const struct feature_msr *m, uint64_t value, uint64_t here,
			 struct x86_names *names)
{
	uint64_t bits = value & ~here & ~m->ignored;
	const char *name;
	int len;

	for (unsigned int i = 0; i < 64; i++) {
		if (!(bits >> i & 1))
			continue;
		len = x86_name_of(m->names, i, &name);
		if (len)
			x86_names_add(names, "%.*s", len, name);
		else
			x86_names_add(names, "bit %u of MSR 0x%" PRIx32, i, m->number);
	}
}

static int refuse(const struct x86_names *names, struct err *e)
{
	char more[32];

	if (!names->len)
		return 0;
	return err_set(e,
		       "the guest relies on its CPU not having faults, or having remedies, that "
		       "this host's KVM does not tell of: %s%s",
		       names->text, x86_names_more(names, more));
}

int x86_features_check(const struct x86_features *guest, const struct x86_features *host,
		       struct err *e)
{
	struct x86_names names = { .len = 0 };

	for (uint32_t i = 0; i < guest->n; i++)
		name_missing(find_known(guest->numbers[i]), guest->values[i],
			     value_of(host, guest->numbers[i]), &names);
	return refuse(&names, e);
}

int x86_feature_fits(const struct x86_features *host, uint32_t number, uint64_t value,
		     struct err *e)
{
	const struct feature_msr *m = find_known(number);
	struct x86_names names = { .len = 0 };

	if (m)
		name_missing(m, value, value_of(host, number), &names);
	return refuse(&names, e);
}
