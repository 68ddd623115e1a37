/*
 * A VM that gives up root for another user may not take its sockets out of root's directories at
 * the end. So it runs in a child, and this process stays to pass signals on and to clean up. And
 * one that has given up rights for a guest that did not arrive cannot receive another one: this
 * process still can.
 */
#ifndef GODWIT_ATTENDANT_H
#define GODWIT_ATTENDANT_H

struct err;
struct start;

/* Runs the VM in a child, until it has ended; in the child this returns, too (s->is_child). An exit
 * code, or VM_EXIT_AGAIN. */
int attendant_run(struct start *s);

/* `receive`: in this process or in children, as often as it takes until a guest has come, or
 * somebody ends it. */
int attendant_receive(struct start *s);

#endif
