// Package metrics counts what the service does, for Prometheus, in a registry of its own.
//
// Attempts are counted where they are put on record: [Metrics.Audit] wraps the audit log, so that the counts and the
// log cannot tell two stories, and the pipeline knows nothing of metrics. What other parts count themselves, such
// as the audit log and the key sources, is read from them when it is asked for.
//
// No label has a value from a caller. An issuer or a target is a label only if configuration names it; anything else
// is "unknown". Otherwise strangers could fill the memory of whoever scrapes, and tokens pasted into the wrong
// parameter would end up on dashboards.
package metrics
