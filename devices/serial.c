/*
 * A serial port with a 16550A (National Semiconductor PC16550D data sheet) and its console on the
 * host's side. Registers at eight ports:
 *
 *   0 RBR/THR (DLAB: divisor low)   1 IER (DLAB: divisor high)   2 IIR/FCR   3 LCR
 *   4 MCR                           5 LSR                        6 MSR       7 SCR
 *
 * Threads: registers on vCPU threads, the console's calls on the I/O thread; `lock` covers the
 * state. A byte goes out at once, so the transmitter is never seen busy, unless the console takes
 * no more: then up to a FIFO of bytes is kept, THRE stays low and the guest waits.
 * The interrupt line rises when a condition comes while there was none; each rise is one edge.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "devices/backend/chardev.h"
#include "devices/models.h"
#include "vmm/base/err.h"
#include "vmm/device.h"
#include "vmm/irq.h"

#define SERIAL_PORTS	 8
#define SERIAL_FIFO_SIZE 16

enum { RBR_THR, IER, IIR_FCR, LCR, MCR, LSR, MSR, SCR };

#define IER_RX	      0x01
#define IER_THRE      0x02
#define IER_LINE      0x04
#define IER_MODEM     0x08
#define IER_MASK      0x0f
#define IIR_NONE      0x01
#define IIR_MODEM     0x00
#define IIR_THRE      0x02
#define IIR_RX	      0x04
#define IIR_LINE      0x06
#define IIR_RX_OLD    0x0c /* fewer bytes than the trigger level, and no more come */
#define IIR_FIFO      0xc0
#define FCR_ENABLE    0x01
#define FCR_CLEAR_RX  0x02
#define FCR_CLEAR_TX  0x04
#define FCR_MASK      0xc9 /* what stays set */
#define LCR_DLAB      0x80
#define MCR_LOOP      0x10
#define MCR_MASK      0x1f
#define LSR_DR	      0x01
#define LSR_OE	      0x02
#define LSR_THRE      0x20
#define LSR_TEMT      0x40
#define MSR_LINES     0xf0
#define MSR_DELTAS    0x0f
#define MSR_TERI      0x04
#define MSR_CONNECTED 0xb0 /* DCD, DSR, CTS */

struct serial_state {
	uint16_t divisor;
	uint8_t ier, fcr, lcr, mcr, scr;
	uint8_t modem_deltas; /* low half of MSR: what changed since it was read */
	bool overrun;
	bool thre_pending; /* the interrupt for an empty transmitter was not acknowledged yet */
	uint8_t rx[SERIAL_FIFO_SIZE], tx[SERIAL_FIFO_SIZE];
	uint32_t rx_len, tx_len;
};

struct serial {
	struct device dev; /* first */
	struct irq irq;
	struct chardev *console;
	pthread_mutex_t lock;
	/* Under lock. */
	struct serial_state st;
	bool line; /* the interrupt line */
};

/* ---- state ---- */

static void serial_fields(struct state *s, void *p)
{
	struct serial_state *st = p;

	state_u16(s, "divisor", &st->divisor);
	state_u8(s, "ier", &st->ier);
	state_u8(s, "fcr", &st->fcr);
	state_u8(s, "lcr", &st->lcr);
	state_u8(s, "mcr", &st->mcr);
	state_u8(s, "scr", &st->scr);
	state_u8(s, "modem-deltas", &st->modem_deltas);
	state_bool(s, "overrun", &st->overrun);
	state_bool(s, "thre-pending", &st->thre_pending);
	state_buffer(s, "rx", st->rx, &st->rx_len, sizeof(st->rx));
	state_buffer(s, "tx", st->tx, &st->tx_len, sizeof(st->tx));
}

static uint32_t serial_depth(const struct serial_state *st)
{
	return st->fcr & FCR_ENABLE ? SERIAL_FIFO_SIZE : 1;
}

static int serial_check(const void *p, struct err *e)
{
	const struct serial_state *st = p;

	if (st->ier & ~IER_MASK || st->mcr & ~MCR_MASK || st->modem_deltas & ~MSR_DELTAS ||
	    st->fcr & ~FCR_MASK || (st->fcr && !(st->fcr & FCR_ENABLE)))
		return err_set(e, "a register has bits that a 16550A does not have");
	if (st->rx_len > serial_depth(st) || st->tx_len > serial_depth(st))
		return err_set(e, "%u bytes received and %u to send, without a FIFO for them",
			       st->rx_len, st->tx_len);
	if (st->tx_len && st->thre_pending)
		return err_set(e, "'thre-pending' is set while there are bytes to send");
	return 0;
}

/* ---- interrupts; lock held ---- */

static uint8_t serial_iir(const struct serial_state *st)
{
	static const uint8_t triggers[] = { 1, 4, 8, 14 };

	if (st->ier & IER_LINE && st->overrun)
		return IIR_LINE;
	if (st->ier & IER_RX && st->rx_len) {
		/* There is no time here in which more could come: what there is, is told at once.
		 */
		if (st->fcr & FCR_ENABLE && st->rx_len < triggers[st->fcr >> 6])
			return IIR_RX_OLD;
		return IIR_RX;
	}
	if (st->ier & IER_THRE && st->thre_pending)
		return IIR_THRE;
	if (st->ier & IER_MODEM && st->modem_deltas)
		return IIR_MODEM;
	return IIR_NONE;
}

static void serial_update(struct serial *d)
{
	bool line = serial_iir(&d->st) != IIR_NONE;

	if (line && !d->line)
		irq_pulse(&d->irq);
	d->line = line;
}

static uint8_t serial_modem_lines(const struct serial_state *st)
{
	if (!(st->mcr & MCR_LOOP))
		return MSR_CONNECTED;
	/* Looped back: RTS -> CTS, DTR -> DSR, OUT1 -> RI, OUT2 -> DCD. */
	return (uint8_t)((st->mcr & 0x02) << 3 | (st->mcr & 0x01) << 5 | (st->mcr & 0x0c) << 4);
}

/* ---- bytes; lock held ---- */

/* What does not fit is lost, as on the chip: a FIFO keeps what it has, a register the newest. */
static void serial_receive(struct serial_state *st, uint8_t byte)
{
	uint32_t depth = serial_depth(st);

	if (st->rx_len < depth) {
		st->rx[st->rx_len++] = byte;
		return;
	}
	st->overrun = true;
	if (depth == 1)
		st->rx[0] = byte;
}

/* Moves what waits to the console; the transmitter is empty when it took all. */
static void serial_transmit(struct serial *d)
{
	struct serial_state *st = &d->st;
	size_t n;

	if (!st->tx_len)
		return;
	n = chardev_put(d->console, st->tx, st->tx_len);
	st->tx_len -= (uint32_t)n;
	memmove(st->tx, st->tx + n, st->tx_len);
	if (!st->tx_len)
		st->thre_pending = true;
}

static void serial_send(struct serial *d, uint8_t byte)
{
	struct serial_state *st = &d->st;

	st->thre_pending = false;
	if (st->mcr & MCR_LOOP) {
		serial_receive(st, byte);
		st->thre_pending = !st->tx_len;
		return;
	}
	/* A guest that does not look at THRE loses bytes once the FIFO is full, as on the chip. */
	if (st->tx_len < serial_depth(st))
		st->tx[st->tx_len++] = byte;
	serial_transmit(d);
}

/* ---- registers; lock held ---- */

static void serial_set_fcr(struct serial *d, uint8_t value)
{
	struct serial_state *st = &d->st;
	bool toggled = (value ^ st->fcr) & FCR_ENABLE;

	if (toggled || value & FCR_CLEAR_RX) {
		st->rx_len = 0;
		chardev_input_ready(d->console);
	}
	if ((toggled || value & FCR_CLEAR_TX) && st->tx_len) {
		st->tx_len = 0;
		st->thre_pending = true;
	}
	/* Without ENABLE the other bits are not programmed. */
	st->fcr = value & FCR_ENABLE ? value & FCR_MASK : 0;
}

static void serial_set_mcr(struct serial *d, uint8_t value)
{
	struct serial_state *st = &d->st;
	uint8_t before = serial_modem_lines(st), changed, after;

	st->mcr = value & MCR_MASK;
	after = serial_modem_lines(st);
	changed = (before ^ after) >> 4;
	/* The ring indicator counts only when it goes away. */
	if (changed & MSR_TERI && after & MSR_TERI << 4)
		changed &= (uint8_t)~MSR_TERI;
	st->modem_deltas |= changed;
	if (!(st->mcr & MCR_LOOP))
		chardev_input_ready(d->console);
}

static void serial_write(struct serial *d, uint64_t reg, uint8_t value)
{
	struct serial_state *st = &d->st;
	bool dlab = st->lcr & LCR_DLAB;

	switch (reg) {
	case RBR_THR:
		if (dlab)
			st->divisor = (uint16_t)((st->divisor & 0xff00) | value);
		else
			serial_send(d, value);
		break;
	case IER:
		if (dlab) {
			st->divisor = (uint16_t)(value << 8 | (st->divisor & 0xff));
			break;
		}
		/* Enabling it while the transmitter is empty interrupts at once. */
		if (value & ~st->ier & IER_THRE && !st->tx_len)
			st->thre_pending = true;
		st->ier = value & IER_MASK;
		break;
	case IIR_FCR:
		serial_set_fcr(d, value);
		break;
	case LCR:
		st->lcr = value;
		break;
	case MCR:
		serial_set_mcr(d, value);
		break;
	case SCR:
		st->scr = value;
		break;
	default: /* LSR and MSR are read-only */
		break;
	}
}

static uint8_t serial_read_rbr(struct serial *d)
{
	struct serial_state *st = &d->st;
	uint8_t byte;

	if (!st->rx_len)
		return 0;
	byte = st->rx[0];
	memmove(st->rx, st->rx + 1, --st->rx_len);
	if (!st->rx_len)
		chardev_input_ready(d->console);
	return byte;
}

static uint8_t serial_read(struct serial *d, uint64_t reg)
{
	struct serial_state *st = &d->st;
	bool dlab = st->lcr & LCR_DLAB;
	uint8_t value;

	switch (reg) {
	case RBR_THR:
		return dlab ? (uint8_t)st->divisor : serial_read_rbr(d);
	case IER:
		return dlab ? (uint8_t)(st->divisor >> 8) : st->ier;
	case IIR_FCR:
		value = serial_iir(st);
		if (value == IIR_THRE)
			st->thre_pending = false; /* this is the acknowledgement */
		return value | (st->fcr & FCR_ENABLE ? IIR_FIFO : 0);
	case LCR:
		return st->lcr;
	case MCR:
		return st->mcr;
	case LSR:
		value = st->tx_len ? 0 : LSR_THRE | LSR_TEMT;
		value |= (st->rx_len ? LSR_DR : 0) | (st->overrun ? LSR_OE : 0);
		st->overrun = false;
		return value;
	case MSR:
		value = serial_modem_lines(st) | st->modem_deltas;
		st->modem_deltas = 0;
		return value;
	default:
		return st->scr;
	}
}

static void serial_access(void *dev, uint64_t offset, void *value, unsigned int len, bool is_write)
{
	struct serial *d = dev;
	uint8_t *bytes = value;
	unsigned int i;

	pthread_mutex_lock(&d->lock);
	/* A wide access is one of a byte to each port, as the bus of a PC makes it. */
	for (i = 0; i < len; i++) {
		if (is_write)
			serial_write(d, offset + i, bytes[i]);
		else
			bytes[i] = serial_read(d, offset + i);
		serial_update(d);
	}
	pthread_mutex_unlock(&d->lock);
}

/* ---- the console's side; I/O thread ---- */

static size_t serial_room(void *arg)
{
	struct serial *d = arg;
	size_t room;

	pthread_mutex_lock(&d->lock);
	/* Looped back, the line in is disconnected: what comes waits. */
	room = d->st.mcr & MCR_LOOP ? 0 : serial_depth(&d->st) - d->st.rx_len;
	pthread_mutex_unlock(&d->lock);
	return room;
}

static void serial_input(void *arg, const uint8_t *bytes, size_t len)
{
	struct serial *d = arg;
	size_t i;

	pthread_mutex_lock(&d->lock);
	for (i = 0; i < len; i++)
		serial_receive(&d->st, bytes[i]);
	serial_update(d);
	pthread_mutex_unlock(&d->lock);
}

static void serial_writable(void *arg)
{
	struct serial *d = arg;

	pthread_mutex_lock(&d->lock);
	serial_transmit(d);
	serial_update(d);
	pthread_mutex_unlock(&d->lock);
}

static const struct chardev_ops serial_console_ops = {
	.is_console = true,
	.room = serial_room,
	.input = serial_input,
	.writable = serial_writable,
};

/* ---- life; I/O thread ---- */

static void serial_destroy(struct device *dev)
{
	struct serial *d = (struct serial *)dev;

	chardev_close(d->console);
	irq_free(&d->irq);
	pthread_mutex_destroy(&d->lock);
	free(d);
}

static int serial_create(const struct device_env *env, const struct tree *t, const char *path,
			 struct device **out, struct err *e)
{
	struct serial *d = calloc(1, sizeof(*d));
	char host[TREE_PATH_MAX];
	const char *console;
	struct device_window window;
	uint32_t gsi;

	if (!d)
		return err_set(e, "%s: out of memory", path);
	d->irq.fd = -1;
	d->st.divisor = 12; /* 9600 baud; what a chip has after power-on is undefined */
	pthread_mutex_init(&d->lock, NULL);
	if (device_init(&d->dev, &serial_model, env, t, path, e) ||
	    device_find_window(env, t, path, SERIAL_PORTS, &window, e) ||
	    tree_u32(t, path, "interrupts", &gsi, e))
		goto fail;
	device_host_path(&d->dev, host);
	if (tree_str(t, host, "console", &console, e))
		goto fail;
	if (chardev_open(&d->console, console, env, &serial_console_ops, d, e)) {
		err_context(e, "%s", d->dev.id);
		goto fail;
	}
	if (irq_init(&d->irq, env->kvm, gsi, e) ||
	    bus_add(window.bus, window.base, SERIAL_PORTS, serial_access, d, e)) {
		err_context(e, "%s", path);
		goto fail;
	}
	*out = &d->dev;
	return 0;
fail:
	serial_destroy(&d->dev);
	return -1;
}

static int serial_activate(struct device *dev, struct err *e)
{
	struct serial *d = (struct serial *)dev;

	pthread_mutex_lock(&d->lock);
	serial_transmit(d);
	/* An interrupt that was pending may have been lost on the way: once more. */
	d->line = false;
	serial_update(d);
	pthread_mutex_unlock(&d->lock);
	return chardev_resume(d->console, e);
}

static void serial_quiesce(struct device *dev)
{
	chardev_pause(((struct serial *)dev)->console);
}

static void serial_depart(struct device *dev)
{
	chardev_depart(((struct serial *)dev)->console);
}

static void serial_save(struct device *dev, void *p)
{
	struct serial *d = (struct serial *)dev;
	struct serial_state *st = p;

	pthread_mutex_lock(&d->lock);
	*st = d->st;
	pthread_mutex_unlock(&d->lock);
	/* What is behind the ends was said long ago, and is nobody's state. */
	memset(st->rx + st->rx_len, 0, sizeof(st->rx) - st->rx_len);
	memset(st->tx + st->tx_len, 0, sizeof(st->tx) - st->tx_len);
}

static void serial_load(struct device *dev, const void *st)
{
	struct serial *d = (struct serial *)dev;

	pthread_mutex_lock(&d->lock);
	d->st = *(const struct serial_state *)st;
	pthread_mutex_unlock(&d->lock);
}

static const struct state_desc serial_state_desc = {
	.size = sizeof(struct serial_state),
	.fields = serial_fields,
	.check = serial_check,
};

const struct device_model serial_model = {
	.name = "serial-8250",
	.state = &serial_state_desc,
	.create = serial_create,
	.destroy = serial_destroy,
	.activate = serial_activate,
	.quiesce = serial_quiesce,
	.depart = serial_depart,
	.save = serial_save,
	.load = serial_load,
};
