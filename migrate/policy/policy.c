/*
 * The built-in policies: those of RHV 4.3, in its own JSON. The parser that reads users' files
 * reads them too.
 */
#include "migrate/policy/policy.h"

#include <stddef.h>
#include <string.h>

static const char minimal_downtime[] =
	"{\"id\":{\"uuid\":\"80554327-0569-496b-bdeb-fcbbf52b827b\"},\"name\":\"Minimal downtime\","
	"\"description\":\"For typical guests, which hardly notice the pause. "
	"A migration that makes no progress for long is given up.\","
	"\"maxMigrations\":2,\"autoConvergence\":true,\"migrationCompression\":false,"
	"\"enableGuestEvents\":true,\"config\":{"
	"\"initialItems\":[{\"action\":\"setDowntime\",\"params\":[\"100\"]}],"
	"\"convergenceItems\":["
	"{\"stallingLimit\":1,\"convergenceItem\":"
	"{\"action\":\"setDowntime\",\"params\":[\"150\"]}},"
	"{\"stallingLimit\":2,\"convergenceItem\":"
	"{\"action\":\"setDowntime\",\"params\":[\"200\"]}},"
	"{\"stallingLimit\":3,\"convergenceItem\":"
	"{\"action\":\"setDowntime\",\"params\":[\"300\"]}},"
	"{\"stallingLimit\":4,\"convergenceItem\":"
	"{\"action\":\"setDowntime\",\"params\":[\"400\"]}},"
	"{\"stallingLimit\":6,\"convergenceItem\":"
	"{\"action\":\"setDowntime\",\"params\":[\"500\"]}}],"
	"\"lastItems\":["
	"{\"action\":\"abort\",\"params\":[]}]}}";

static const char suspend_workload[] =
	"{\"id\":{\"uuid\":\"80554327-0569-496b-bdeb-fcbbf52b827c\"},"
	"\"name\":\"Suspend workload if needed\","
	"\"description\":\"For busy guests too, which may stand still for seconds if nothing else "
	"helps. What makes no progress even then is given up.\","
	"\"maxMigrations\":1,\"autoConvergence\":true,\"migrationCompression\":true,"
	"\"enableGuestEvents\":true,\"config\":{"
	"\"initialItems\":[{\"action\":\"setDowntime\",\"params\":[\"100\"]}],"
	"\"convergenceItems\":["
	"{\"stallingLimit\":1,\"convergenceItem\":"
	"{\"action\":\"setDowntime\",\"params\":[\"150\"]}},"
	"{\"stallingLimit\":2,\"convergenceItem\":"
	"{\"action\":\"setDowntime\",\"params\":[\"200\"]}},"
	"{\"stallingLimit\":3,\"convergenceItem\":"
	"{\"action\":\"setDowntime\",\"params\":[\"300\"]}},"
	"{\"stallingLimit\":4,\"convergenceItem\":"
	"{\"action\":\"setDowntime\",\"params\":[\"400\"]}},"
	"{\"stallingLimit\":6,\"convergenceItem\":"
	"{\"action\":\"setDowntime\",\"params\":[\"500\"]}}],"
	"\"lastItems\":["
	"{\"action\":\"setDowntime\",\"params\":[\"5000\"]},"
	"{\"action\":\"abort\",\"params\":[]}]}}";

static const char post_copy[] =
	"{\"id\":{\"uuid\":\"a7aeedb2-8d66-4e51-bb22-32595027ce71\"},\"name\":\"Post-copy "
	"migration\","
	"\"description\":\"Begins as the others do; if it makes no progress, the guest goes on at "
	"the destination "
	"before all of its memory is there.\","
	"\"maxMigrations\":2,\"autoConvergence\":true,\"migrationCompression\":false,"
	"\"enableGuestEvents\":true,\"config\":{"
	"\"initialItems\":[{\"action\":\"setDowntime\",\"params\":[\"100\"]}],"
	"\"convergenceItems\":["
	"{\"stallingLimit\":1,\"convergenceItem\":"
	"{\"action\":\"setDowntime\",\"params\":[\"150\"]}},"
	"{\"stallingLimit\":2,\"convergenceItem\":"
	"{\"action\":\"setDowntime\",\"params\":[\"200\"]}}],"
	"\"lastItems\":["
	"{\"action\":\"postcopy\",\"params\":[]},"
	"{\"action\":\"abort\",\"params\":[]}]}}";

const char *const policy_builtins[] = { "minimal-downtime", "suspend-workload-if-needed",
					"post-copy", NULL };

const char *policy_builtin_text(const char *name)
{
	static const char *const texts[] = { minimal_downtime, suspend_workload, post_copy };
	unsigned int i;

	for (i = 0; policy_builtins[i]; i++)
		if (!strcmp(name, policy_builtins[i]))
			return texts[i];
	return NULL;
}

const char *policy_action_name(enum policy_action a)
{
	static const char *const names[] = { [POLICY_SET_DOWNTIME] = "setDowntime",
					     [POLICY_ABORT] = "abort",
					     [POLICY_POSTCOPY] = "postcopy" };

	return names[a];
}

bool policy_has(const struct policy *p, enum policy_action a)
{
	unsigned int i;

	for (i = 0; i < p->n_convergence; i++)
		if (p->convergence[i].item.action == a)
			return true;
	for (i = 0; i < p->n_last; i++)
		if (p->last[i].action == a)
			return true;
	return a == POLICY_SET_DOWNTIME && p->n_initial;
}
