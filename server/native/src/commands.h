/* What Python's commands do, on the loop's thread. */
#ifndef PN_COMMANDS_H
#define PN_COMMANDS_H

struct pn_command;

void command_run(struct pn_command *command);

#endif
