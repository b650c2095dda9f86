package upstream

import (
	"fmt"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// Outlives makes a credential whose life others chose one that its holder gives up with its grant: Expires is the grant's end, Stays
// says until when it works all the same, and Data remembers it for [DiesAt]. One that ends before its grant is left as it is.
func Outlives(c brokers.Credential, o brokers.Order) brokers.Credential {
	end := c.Expires.UTC()
	if !end.After(o.Grant().Expires()) {
		return c
	}
	c.Expires = o.Grant().Expires()
	c.Stays = fmt.Sprintf("its life was chosen by others: it works until %s, whatever becomes of its grant", end.Format(time.RFC3339))
	c.Data = secret.New(end.Format(time.RFC3339))
	return c
}

// DiesAt is the receipt of what cannot be killed: it dies when Data says, or else at the latest.
func DiesAt(h brokers.Handle, latest time.Time, reason string, now time.Time) brokers.Receipt {
	last := latest
	if end, err := time.Parse(time.RFC3339, h.Data.Reveal()); err == nil {
		last = end
	}
	if !h.Expires.IsZero() && !last.After(now) {
		return brokers.Receipt{State: brokers.Dead, At: now, Gone: true}
	}
	return brokers.Receipt{State: brokers.DiesAt, At: last, Reason: reason}
}
