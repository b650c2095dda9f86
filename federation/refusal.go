package federation

// refusal is a reason with its detail on the way to becoming a [RejectedError]. Details before the
// signature verified are constants, but for iss and aud: an operator who connects an issuer must see them. What
// else nobody signed is repeated nowhere.
type refusal struct {
	reason error
	detail string
}

func (r *refusal) Error() string { return r.reason.Error() + ": " + r.detail }
func (r *refusal) Unwrap() error { return r.reason }

func malformed(detail string) error { return &refusal{ErrMalformed, detail} }
func badClaim(detail string) error  { return &refusal{ErrClaims, detail} }
