// SPDX-License-Identifier: GPL-2.0
/* emunic: the knobs in debugfs. Formats in emunic.h. */
#include <linux/debugfs.h>
#include <linux/module.h>
#include <linux/seq_file.h>

#include "emunic.h"

/*
 * What a real driver takes or refuses is a set of these, so that a profile of
 * a driver is one line to write.
 */
static const struct {
	const char *name;
	bool on;		/* by default */
} emunic_words[EMUNIC_NUM_WORDS] = {
	/* binders */
	[EMUNIC_FT] = { "ft", true },
	[EMUNIC_BLOCK] = { "block", true },
	/* match and push 802.1ad */
	[EMUNIC_8021AD] = { "8021ad", false },
	/* take ADD and MANGLE of TTL and hop limit, and decrement only so */
	[EMUNIC_TTL_ADD] = { "ttl_add", false },
	[EMUNIC_GRE] = { "gre", true },
	/* rewrite IPv6 addresses */
	[EMUNIC_V6_MANGLE] = { "v6_mangle", true },
	[EMUNIC_PPPOE_PUSH] = { "pppoe_push", true },
	/* take the key PPPOE; a frame that matches is decapsulated */
	[EMUNIC_PPPOE_MATCH] = { "pppoe_match", false },
	/* a PPPoE frame matches a rule without that key, any session */
	[EMUNIC_PPPOE_DECAP] = { "pppoe_decap", false },
	/* redirect to the ingress port */
	[EMUNIC_HAIRPIN] = { "hairpin", true },
	/* take a rule whose ingress is another port of this NIC */
	[EMUNIC_ANY_PORT] = { "any_port", false },
	/* refuse rules without META, with priority < 1, without both MACs */
	[EMUNIC_NEED_META] = { "need_meta", false },
	[EMUNIC_NEED_PRIO] = { "need_prio", false },
	[EMUNIC_NEED_MACS] = { "need_macs", false },
	/* the first VLAN_PUSH is the outer tag, as mtk reads the list; else
	 * each push wraps the one before, as tc and mlx5 do
	 */
	[EMUNIC_PUSH_OUTER_FIRST] = { "push_outer_first", false },
	/* STATS and DESTROY of an unknown cookie answer 0, -EINVAL */
	[EMUNIC_SILENT_ZERO] = { "silent_zero", false },
	[EMUNIC_UNKNOWN_EINVAL] = { "unknown_einval", false },
	/* refuse FT rules of a priority beyond 0 to 15, others beyond 16 */
	[EMUNIC_PRIO_RANGE] = { "prio_range", false },
	/* pop and push is a new ID in an 802.1Q tag that is matched; no more
	 * than two pops and pushes
	 */
	[EMUNIC_VLAN_REWRITE] = { "vlan_rewrite", false },
	/* refuse CSUM unless something was rewritten before */
	[EMUNIC_CSUM_MANGLED] = { "csum_mangled", false },
	/* PORTS and IP headers other than TTL are for TCP and UDP only */
	[EMUNIC_L4_ONLY] = { "l4_only", false },
	/* PPPoE is one of the two tags */
	[EMUNIC_PPPOE_IS_TAG] = { "pppoe_is_tag", false },
	/* do not look whether there are match keys that are not known, nor at
	 * the protocol of tags
	 */
	[EMUNIC_ANY_KEY] = { "any_key", false },
	/* a mangle of a field that is not known is -EINVAL */
	[EMUNIC_MANGLE_EINVAL] = { "mangle_einval", false },
	/* a redirect to a device of others is -EINVAL */
	[EMUNIC_FOREIGN_EINVAL] = { "foreign_einval", false },
	/* the source MAC of IPv6 is the egress port's, whatever the rule says */
	[EMUNIC_V6_PORT_MAC] = { "v6_port_mac", false },
	/* rules beyond the capacity are taken, and idle until there is room */
	[EMUNIC_OVERCOMMIT] = { "overcommit", false },
	/* blocks of VLAN devices, by either binder */
	[EMUNIC_INDIRECT] = { "indirect", true },
	/* redirect to a VLAN device, whose tags are pushed */
	[EMUNIC_REDIRECT_VLAN_DEV] = { "redirect_vlan_dev", true },
	/* take what the core replays; see the knob "indirect" */
	[EMUNIC_REPLAY] = { "replay", false },
	/* redirect to a device of others, which sends what it is handed, as
	 * Wi-Fi chips do what comes from mtk's WED
	 */
	[EMUNIC_WED] = { "wed", false },
	/* say at BIND that callbacks do without RTNL; warn if they have to */
	[EMUNIC_UNLOCKED] = { "unlocked", true },
	[EMUNIC_NEED_RTNL] = { "need_rtnl", false },
	/* take actions that are not known, and ADD, and do nothing about them;
	 * nobody decrements the TTL
	 */
	[EMUNIC_ANY_ACTION] = { "any_action", false },
	/* match the destination MAC */
	[EMUNIC_DMAC_MATCH] = { "dmac_match", true },
};

static const char * const emunic_cmd_names[EMUNIC_NUM_CMDS] = {
	[EMUNIC_CMD_REPLACE] = "replace",
	[EMUNIC_CMD_DESTROY] = "destroy",
	[EMUNIC_CMD_STATS] = "stats",
	[EMUNIC_CMD_BIND] = "bind",
	[EMUNIC_CMD_UNBIND] = "unbind",
};

unsigned long emunic_default_words(void)
{
	unsigned long accept = 0;
	int i;

	BUILD_BUG_ON(EMUNIC_NUM_WORDS > BITS_PER_LONG);
	for (i = 0; i < EMUNIC_NUM_WORDS; i++)
		if (emunic_words[i].on)
			accept |= BIT(i);
	return accept;
}

void emunic_knobs_reset(void)
{
	emunic.accept = emunic_default_words();
}

/* A failure to inject, or 0. Under emunic.lock. */
int emunic_inject(enum emunic_cmd cmd, const struct emunic_port *port)
{
	const struct emunic_fault *fault;
	unsigned int i;

	lockdep_assert_held(&emunic.lock);
	for (i = 0; i < emunic.num_faults; i++) {
		fault = &emunic.fault[i];
		if (fault->cmd != cmd ||
		    (fault->port >= 0 ? fault->port != port->index :
					emunic_is_apart(port)))
			continue;
		if (prandom_u32_state(&emunic.rnd) % 100 >= fault->percent)
			continue;
		emunic.total[EMUNIC_FAULTS]++;
		return fault->err;
	}
	return 0;
}

/* A line of user memory, trimmed; to be freed. */
static char *emunic_get_line(const char __user *ubuf, size_t len)
{
	char *buf;

	if (len > PAGE_SIZE)
		return ERR_PTR(-E2BIG);
	buf = memdup_user_nul(ubuf, len);
	return buf;
}

static int emunic_accept_show(struct seq_file *m, void *v)
{
	int i;

	for (i = 0; i < EMUNIC_NUM_WORDS; i++)
		seq_printf(m, "%s%c%s", i ? " " : "",
			   emunic_accepts(i) ? '+' : '-', emunic_words[i].name);
	seq_putc(m, '\n');
	return 0;
}

static int emunic_accept_word(const char *word, unsigned long *accept)
{
	int i;

	if (!strcmp(word, "default")) {
		*accept = emunic_default_words();
		return 0;
	}
	if (*word != '+' && *word != '-')
		return -EINVAL;
	for (i = 0; i < EMUNIC_NUM_WORDS; i++) {
		if (strcmp(word + 1, emunic_words[i].name))
			continue;
		if (*word == '+')
			*accept |= BIT(i);
		else
			*accept &= ~BIT(i);
		return 0;
	}
	return -EINVAL;
}

/* All the words or none. */
static ssize_t emunic_accept_write(struct file *file, const char __user *ubuf,
				   size_t len, loff_t *ppos)
{
	char *buf, *pos, *word;
	unsigned long accept;
	int err = 0;

	buf = emunic_get_line(ubuf, len);
	if (IS_ERR(buf))
		return PTR_ERR(buf);
	pos = buf;

	mutex_lock(&emunic.lock);
	accept = emunic.accept;
	while (!err && (word = strsep(&pos, " ,\t\n")))
		if (*word)
			err = emunic_accept_word(word, &accept);
	if (!err)
		WRITE_ONCE(emunic.accept, accept);
	mutex_unlock(&emunic.lock);
	kfree(buf);
	return err ?: len;
}
DEFINE_SHOW_STORE_ATTRIBUTE(emunic_accept);

static int emunic_profile_show(struct seq_file *m, void *v)
{
	mutex_lock(&emunic.lock);
	seq_printf(m, "%s\n", emunic_profile_name());
	mutex_unlock(&emunic.lock);
	return 0;
}

static ssize_t emunic_profile_write(struct file *file, const char __user *ubuf,
				    size_t len, loff_t *ppos)
{
	char *buf;
	int err;

	buf = emunic_get_line(ubuf, len);
	if (IS_ERR(buf))
		return PTR_ERR(buf);

	mutex_lock(&emunic.lock);
	err = emunic_profile_set(strim(buf));
	mutex_unlock(&emunic.lock);
	kfree(buf);
	return err ?: len;
}
DEFINE_SHOW_STORE_ATTRIBUTE(emunic_profile);

static int emunic_faults_show(struct seq_file *m, void *v)
{
	const struct emunic_fault *fault;
	unsigned int i;

	mutex_lock(&emunic.lock);
	for (i = 0; i < emunic.num_faults; i++) {
		fault = &emunic.fault[i];
		seq_printf(m, "%s %d %u%%", emunic_cmd_names[fault->cmd],
			   fault->err, fault->percent);
		if (fault->port >= 0)
			seq_printf(m, " nic%d", fault->port);
		seq_putc(m, '\n');
	}
	mutex_unlock(&emunic.lock);
	return 0;
}

static int emunic_fault_set(const struct emunic_fault *new)
{
	struct emunic_fault *fault;
	unsigned int i;

	for (i = 0; i < emunic.num_faults; i++) {
		fault = &emunic.fault[i];
		if (fault->cmd == new->cmd && fault->port == new->port)
			break;
	}
	if (i == EMUNIC_MAX_FAULTS)
		return -ENOSPC;
	if (new->percent) {
		emunic.fault[i] = *new;
		emunic.num_faults = max(emunic.num_faults, i + 1);
	} else if (i < emunic.num_faults) {
		emunic.fault[i] = emunic.fault[--emunic.num_faults];
	}
	return 0;
}

static int emunic_fault_line(char *line)
{
	char cmd[16], percent[16], name[16] = "";
	struct emunic_fault new = { .port = -1 };
	struct emunic_port *port;
	int n, err, i;

	line = strim(line);
	if (!*line)
		return 0;
	if (!strcmp(line, "none")) {
		emunic.num_faults = 0;
		return 0;
	}
	n = sscanf(line, "%15s %d %15s %15s", cmd, &err, percent, name);
	if (n < 3 || !err || abs(err) > MAX_ERRNO)
		return -EINVAL;
	i = match_string(emunic_cmd_names, EMUNIC_NUM_CMDS, cmd);
	if (i < 0)
		return -EINVAL;
	new.cmd = i;
	new.err = -abs(err);
	percent[strcspn(percent, "%")] = '\0';
	if (kstrtouint(percent, 10, &new.percent) || new.percent > 100)
		return -EINVAL;
	if (n == 4) {
		port = emunic_port_by_name(name);
		if (!port)
			return -ENODEV;
		new.port = port->index;
	}
	return emunic_fault_set(&new);
}

static ssize_t emunic_faults_write(struct file *file, const char __user *ubuf,
				   size_t len, loff_t *ppos)
{
	char *buf, *pos, *line;
	int err = 0;

	buf = emunic_get_line(ubuf, len);
	if (IS_ERR(buf))
		return PTR_ERR(buf);
	pos = buf;

	mutex_lock(&emunic.lock);
	while (!err && (line = strsep(&pos, "\n;")))
		err = emunic_fault_line(line);
	mutex_unlock(&emunic.lock);
	kfree(buf);
	return err ?: len;
}
DEFINE_SHOW_STORE_ATTRIBUTE(emunic_faults);

static ssize_t emunic_evict_write(struct file *file, const char __user *ubuf,
				  size_t len, loff_t *ppos)
{
	struct emunic_rule *rule;
	unsigned long cookie;
	unsigned int count;
	char *buf, *arg;
	int err = 0;

	buf = emunic_get_line(ubuf, len);
	if (IS_ERR(buf))
		return PTR_ERR(buf);
	arg = strim(buf);

	mutex_lock(&emunic.lock);
	if (!strncmp(arg, "0x", 2)) {
		err = kstrtoul(arg, 16, &cookie);
		rule = err ? NULL : emunic_rule_find(cookie);
		if (rule) {
			emunic_rule_del(rule);
			emunic.total[EMUNIC_EVICTED]++;
		} else if (!err) {
			err = -ENOENT;
		}
	} else {
		count = UINT_MAX;
		if (strcmp(arg, "all"))
			err = kstrtouint(arg, 10, &count);
		if (!err)
			emunic.total[EMUNIC_EVICTED] +=
				emunic_rules_evict(count);
	}
	mutex_unlock(&emunic.lock);
	kfree(buf);
	return err ?: len;
}

/* The rule's successor, which differs as "what" says. The lock is held. */
static int emunic_lie(struct emunic_rule *rule, const char *what)
{
	struct emunic_rule *other;
	int err;

	other = kmemdup(rule, sizeof(*rule), GFP_KERNEL);
	if (!other)
		return -ENOMEM;
	if (!strcmp(what, "mac")) {
		other->prog.eth[ETH_ALEN - 1] ^= 1;
	} else if (!strcmp(what, "port")) {
		other->prog.out ^= 1;
		if (other->prog.out_dev || other->prog.out >= emunic.num_ports) {
			kfree(other);
			return -EINVAL;
		}
	} else if (!strcmp(what, "nat")) {
		other->prog.src = rule->key.src;
		other->prog.src.s6_addr32[0] ^= htonl(1);
		other->prog.src_words |= 1;
	} else if (!strcmp(what, "extra")) {
		other->key.sport ^= htons(1);
		other->cookie = ~rule->cookie;
	} else {
		kfree(other);
		return -EINVAL;
	}
	if (other->cookie == rule->cookie)
		emunic_rule_del(rule);
	err = emunic_rule_add(other, NULL);
	if (err)
		kfree(other);
	return err;
}

static ssize_t emunic_lie_write(struct file *file, const char __user *ubuf,
				size_t len, loff_t *ppos)
{
	struct emunic_rule *rule;
	unsigned long cookie;
	char *buf, *arg, *what;
	int err;

	buf = emunic_get_line(ubuf, len);
	if (IS_ERR(buf))
		return PTR_ERR(buf);
	arg = strim(buf);
	what = strsep(&arg, " ");
	err = arg ? kstrtoul(arg, 16, &cookie) : -EINVAL;
	if (!err) {
		mutex_lock(&emunic.lock);
		rule = emunic_rule_find(cookie);
		err = rule ? emunic_lie(rule, what) : -ENOENT;
		mutex_unlock(&emunic.lock);
	}
	kfree(buf);
	return err ?: len;
}

static const struct file_operations emunic_lie_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.write = emunic_lie_write,
};

static const struct file_operations emunic_evict_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.write = emunic_evict_write,
};

static ssize_t emunic_reset_write(struct file *file, const char __user *ubuf,
				  size_t len, loff_t *ppos)
{
	int err, val;

	err = kstrtoint_from_user(ubuf, len, 0, &val);
	if (err)
		return err;
	if (val != 1 && val != 2)
		return -EINVAL;

	mutex_lock(&emunic.lock);
	if (val == 1)
		emunic.total[EMUNIC_EVICTED] += emunic_rules_evict(UINT_MAX);
	else
		emunic_rules_restart();
	mutex_unlock(&emunic.lock);
	return len;
}

static const struct file_operations emunic_reset_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.write = emunic_reset_write,
};

static ssize_t emunic_plug_write(const char __user *ubuf, size_t len,
				 int (*plug)(struct emunic_port *port))
{
	struct emunic_port *port;
	char *buf;
	int err;

	buf = emunic_get_line(ubuf, len);
	if (IS_ERR(buf))
		return PTR_ERR(buf);
	port = emunic_port_by_name(strim(buf));
	err = port ? plug(port) : -ENODEV;
	kfree(buf);
	return err ?: len;
}

static ssize_t emunic_vanish_write(struct file *file, const char __user *ubuf,
				   size_t len, loff_t *ppos)
{
	return emunic_plug_write(ubuf, len, emunic_port_vanish);
}

static const struct file_operations emunic_vanish_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.write = emunic_vanish_write,
};

static ssize_t emunic_appear_write(struct file *file, const char __user *ubuf,
				   size_t len, loff_t *ppos)
{
	return emunic_plug_write(ubuf, len, emunic_port_appear);
}

static const struct file_operations emunic_appear_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.write = emunic_appear_write,
};

/* A flag of ports, an enum emunic_flag; the file's private data says which. */
static int emunic_flag_show(struct seq_file *m, void *v)
{
	long flag = (long)m->private;
	unsigned int i;

	for (i = 0; i < emunic.num_ports; i++)
		if (test_bit(flag, &emunic.port[i].flags))
			seq_printf(m, "nic%u\n", i);
	return 0;
}

static ssize_t emunic_flag_write(struct file *file, const char __user *ubuf,
				 size_t len, loff_t *ppos)
{
	long flag = (long)file_inode(file)->i_private;
	struct emunic_port *port;
	unsigned int i;
	char *buf, *arg;
	int err = 0;

	buf = emunic_get_line(ubuf, len);
	if (IS_ERR(buf))
		return PTR_ERR(buf);
	arg = strim(buf);

	port = emunic_port_by_name(arg);
	if (port)
		set_bit(flag, &port->flags);
	else if (!strcmp(arg, "none"))
		for (i = 0; i < emunic.num_ports; i++)
			clear_bit(flag, &emunic.port[i].flags);
	else
		err = -ENODEV;
	kfree(buf);
	return err ?: len;
}
DEFINE_SHOW_STORE_ATTRIBUTE(emunic_flag);

static int emunic_indirect_show(struct seq_file *m, void *v)
{
	seq_printf(m, "%d\n", emunic_indr_get());
	return 0;
}

static ssize_t emunic_indirect_write(struct file *file,
				     const char __user *ubuf, size_t len,
				     loff_t *ppos)
{
	bool on;
	int err;

	err = kstrtobool_from_user(ubuf, len, &on);
	if (!err)
		err = emunic_indr_set(on);
	return err ?: len;
}
DEFINE_SHOW_STORE_ATTRIBUTE(emunic_indirect);

static int emunic_fib_churn_show(struct seq_file *m, void *v)
{
	seq_printf(m, "%u\n", emunic_fib_get());
	return 0;
}

static ssize_t emunic_fib_churn_write(struct file *file, const char __user *ubuf,
				      size_t len, loff_t *ppos)
{
	struct emunic_port *port;
	char *buf, *arg;
	int err = -ENODEV;

	buf = emunic_get_line(ubuf, len);
	if (IS_ERR(buf))
		return PTR_ERR(buf);
	arg = strim(buf);

	port = emunic_port_by_name(arg);
	if (port || !strcmp(arg, "none"))
		err = emunic_fib_set(port);
	kfree(buf);
	return err ?: len;
}
DEFINE_SHOW_STORE_ATTRIBUTE(emunic_fib_churn);

static int emunic_latency_get(void *data, u64 *val)
{
	*val = READ_ONCE(emunic.latency_us);
	return 0;
}

static int emunic_latency_set(void *data, u64 val)
{
	if (val > U32_MAX)
		return -ERANGE;
	WRITE_ONCE(emunic.latency_us, val);
	/* pairs with the barrier of wait_var_event_timeout() */
	smp_mb();
	wake_up_var(&emunic.latency_us);
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(emunic_latency_fops, emunic_latency_get,
			 emunic_latency_set, "%llu\n");

void emunic_knobs_debugfs(struct dentry *dir)
{
	debugfs_create_u32("capacity", 0600, dir, &emunic.capacity);
	debugfs_create_file_unsafe("latency_us", 0600, dir, NULL,
				   &emunic_latency_fops);
	debugfs_create_bool("serial", 0600, dir, &emunic.serial);
	debugfs_create_file("accept", 0600, dir, NULL, &emunic_accept_fops);
	debugfs_create_file("profile", 0600, dir, NULL, &emunic_profile_fops);
	debugfs_create_file("faults", 0600, dir, NULL, &emunic_faults_fops);
	debugfs_create_file("evict", 0200, dir, NULL, &emunic_evict_fops);
	debugfs_create_file("lie", 0200, dir, NULL, &emunic_lie_fops);
	debugfs_create_file("reset", 0200, dir, NULL, &emunic_reset_fops);
	debugfs_create_file("indirect", 0600, dir, NULL, &emunic_indirect_fops);
	debugfs_create_file("wifi", 0600, dir, (void *)EMUNIC_WIFI,
			    &emunic_flag_fops);
	debugfs_create_file("apart", 0600, dir, (void *)EMUNIC_APART,
			    &emunic_flag_fops);
	debugfs_create_file("fib_churn", 0600, dir, NULL, &emunic_fib_churn_fops);
	debugfs_create_file("vanish", 0200, dir, NULL, &emunic_vanish_fops);
	debugfs_create_file("appear", 0200, dir, NULL, &emunic_appear_fops);
}
