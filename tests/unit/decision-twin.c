/*
 * Reads states of a policy, one a line, and prints what hybrid_decide() makes of each: the C side of test_decision_twin.py.
 *
 * A line is numbers: now, mode, rest, locked, lock, overridden, override's mode, forced, its end, switches, per, how many rules
 * and for each tcg, priority, min, max, since, until; how many recent switches, and their times. Modes are 1 for tcg, 0 for kvm.
 * Then what rules do: one number, -1 for nothing, otherwise the index of the rule that is begun (even lines) or ended.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "hybrid-decision.h"

static int64_t number(void)
{
    int64_t value;

    if (scanf("%" SCNd64, &value) != 1) {
        exit(2);
    }
    return value;
}

int main(void)
{
    size_t cases = number();

    for (size_t n = 0; n < cases; n++) {
        HybridDecisionState s = { };
        int64_t now = number(), act;
        HybridDecisionRule *rules;
        int64_t *recent;
        HybridDecision d;

        s.tcg = number();
        s.rest_tcg = number();
        s.locked = number();
        s.lock_tcg = number();
        s.overridden = number();
        s.override_tcg = number();
        s.override_forced = number();
        s.override_until_ms = number();
        s.switches = number();
        s.per_ms = number();
        s.n_rules = number();
        s.rules = rules = calloc(s.n_rules + 1, sizeof(*rules));
        for (size_t i = 0; i < s.n_rules; i++) {
            rules[i].tcg = number();
            rules[i].priority = number();
            rules[i].min_ms = number();
            rules[i].max_ms = number();
            rules[i].since_ms = number();
            rules[i].until_ms = number();
        }
        s.n_recent = number();
        s.recent = recent = calloc(s.n_recent + 1, sizeof(*recent));
        for (size_t i = 0; i < s.n_recent; i++) {
            recent[i] = number();
        }
        act = number();

        d = hybrid_decide(&s, now);
        printf("%d %d %" PRId64 " %d %" PRId64, d.tcg, d.cause,
               d.cause == HYBRID_DECISION_RULE ? (int64_t)d.rule : -1, d.limited, d.next_ms);
        if (act >= 0) {
            bool news = n % 2 ? hybrid_rule_end(&rules[act], now) : hybrid_rule_begin(&rules[act], now);

            printf(" %d %" PRId64 " %" PRId64, news, rules[act].since_ms, rules[act].until_ms);
        }
        printf("\n");
        free(rules);
        free(recent);
    }
    return 0;
}
