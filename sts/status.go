package sts

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/sallyport-sts/sallyport/sts/statuslist"
)

// StatusLists are the status lists of tokens (OAuth Token Status List), by their ids.
type StatusLists interface {
	// JWT returns a list as it is served, "" when there is none of this id, an error when nobody can say now.
	JWT(ctx context.Context, id string) (string, error)
}

// List gives x the status lists. It is called once, before anything is served.
func (x *Exchanger) List(l StatusLists) { x.status = l }

// serveStatus answers GET /status/{list} (OAuth Token Status List section 8.1). A list of another time cannot be asked for
// (section 8.4); one that cannot be told truthfully is not told.
func (x *Exchanger) serveStatus(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Has("time") {
		noStore(w.Header())
		http.Error(w, "lists of another time are not kept", http.StatusNotImplemented)
		return
	}
	var jwt string
	var err error
	if x.status != nil {
		jwt, err = x.status.JWT(r.Context(), chi.URLParam(r, "list"))
	}
	switch {
	case err != nil:
		x.open(Request{Remote: remote(r)}).refuse(r.Context(), err).write(w)
	case jwt == "":
		notFound(w, r)
	default:
		w.Header().Set("Content-Type", statuslist.ContentType)
		w.Header().Set("Cache-Control", "public, max-age="+strconv.Itoa(int(statuslist.TTL/time.Second)))
		_, _ = w.Write([]byte(jwt))
	}
}
