/* godwit inspect; main.c's, since it knows of migration. */
#ifndef GODWIT_CLI_INSPECT_H
#define GODWIT_CLI_INSPECT_H

int verb_inspect(int argc, char **argv);

#endif
