// Package brokers is the seam where kinds of credential plug in: a [Kind] per credential, the [Set] of
// those that a binary knows, and the [Order] that is all a broker ever sees. A broker makes its one
// kind of credential for a grant; it never sees the subject token and never decides who may have what.
package brokers
