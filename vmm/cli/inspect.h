/* godwit inspect: not in cli_verbs, as it needs no running VM. */
#ifndef GODWIT_CLI_INSPECT_H
#define GODWIT_CLI_INSPECT_H

int verb_inspect(int argc, char **argv);

#endif
