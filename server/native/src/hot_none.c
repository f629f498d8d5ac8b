/* Every call is Python's. */
#include "call.h"

const struct hot_command hot_commands[] = {{NULL, NULL}};

enum pn_verdict hot_begin(struct pn_call *call) { (void)call; return PN_BRIDGE; }
enum pn_verdict hot_message_begin(struct pn_call *call, size_t length) { (void)call; (void)length; return PN_BRIDGE; }
enum pn_verdict hot_feed(struct pn_call *call, const uint8_t *bytes, size_t size)
{ (void)call; (void)bytes; (void)size; return PN_BRIDGE; }
enum pn_verdict hot_message_end(struct pn_call *call) { (void)call; return PN_BRIDGE; }
void hot_replay(struct pn_call *call, uint8_t *to, size_t fed) { (void)call; (void)to; (void)fed; }
void hot_half_closed(struct pn_call *call) { (void)call; }
bool hot_bridged_answer(struct pn_call *call, uint8_t *message, size_t length)
{ (void)call; (void)message; (void)length; return false; }
void hot_gone(struct pn_call *call) { (void)call; }
void hot_round(void) {}
void hot_completions(void) {}
void hot_start(void) {}
void hot_stop(void) {}
void hot_timer(void) {}
