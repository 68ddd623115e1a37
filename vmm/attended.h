/*
 * The child's side of an attending process (attendant.h).
 */
#ifndef GODWIT_ATTENDED_H
#define GODWIT_ATTENDED_H

struct err;

/*
 * Returns when every signal that has reached the attending process before has been
 * passed on, so that it is pending here. -1 if the attending process has ended or does not answer.
 */
int attended_settle(int fd, struct err *e);

#endif
