/* Which godwit this is. */
#ifndef GODWIT_VERSION_H
#define GODWIT_VERSION_H

/* As git describes it: "v1.0", "v1.0-3-gabcdef0-dirty", or "unknown". */
const char *godwit_version(void);

#endif
