package embedded

import (
	"container/heap"
	"fmt"

	"github.com/sallyport-sts/sallyport/sts/lease"
)

// index is the leases in memory. The leases that it points to are never changed, only replaced.
type index struct {
	all    map[string]*lease.Lease
	prints map[string]string          // fingerprint -> id
	below  map[string]map[string]bool // lease -> ids of those that descend from it
	due    map[string]*queue          // by target; may hold leases that were replaced
	target map[string]int             // leases of each target
	owner  map[string]int             // leases of each workload
}

func newIndex() index {
	return index{map[string]*lease.Lease{}, map[string]string{}, map[string]map[string]bool{}, map[string]*queue{}, map[string]int{}, map[string]int{}}
}

func (x *index) put(l *lease.Lease) {
	x.all[l.ID] = l
	if l.Fingerprint != "" {
		x.prints[l.Fingerprint] = l.ID
	}
	for _, a := range l.Ancestors {
		if x.below[a] == nil {
			x.below[a] = map[string]bool{}
		}
		x.below[a][l.ID] = true
	}
	if x.due[l.Target] == nil {
		x.due[l.Target] = new(queue)
	}
	heap.Push(x.due[l.Target], l)
	x.target[l.Target]++
	x.owner[l.Workload]++
}

func (x *index) remove(id string) {
	l, ok := x.all[id]
	if !ok {
		return
	}
	delete(x.all, id)
	if l.Fingerprint != "" {
		delete(x.prints, l.Fingerprint)
	}
	for _, a := range l.Ancestors {
		if delete(x.below[a], id); len(x.below[a]) == 0 {
			delete(x.below, a)
		}
	}
	if x.target[l.Target]--; x.target[l.Target] == 0 {
		delete(x.target, l.Target)
		delete(x.due, l.Target)
	} else if q := x.due[l.Target]; q.Len() > 2*x.target[l.Target]+64 { // mostly leases that were replaced
		q.keep(func(l *lease.Lease) bool { return x.all[l.ID] == l })
	}
	if x.owner[l.Workload]--; x.owner[l.Workload] == 0 {
		delete(x.owner, l.Workload)
	}
}

// queue is a heap of leases, the longest due first.
type queue []*lease.Lease

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].Due.Before(q[j].Due) }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }

// Push implements [heap.Interface].
func (q *queue) Push(l any) { *q = append(*q, l.(*lease.Lease)) }

// Pop implements [heap.Interface].
func (q *queue) Pop() any {
	old := *q
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return l
}

func (q *queue) keep(wanted func(*lease.Lease) bool) {
	kept := make(queue, 0, len(*q)/2)
	for _, l := range *q {
		if wanted(l) {
			kept = append(kept, l)
		}
	}
	heap.Init(&kept)
	*q = kept
}

// draft is changes that are not synced yet, over what is.
type draft struct {
	base    *index                  // only its writer is reading, so no lock is needed
	changed map[string]*lease.Lease // nil: removed
	total   int
	target  map[string]int // how many more
	owner   map[string]int
}

func (d *draft) read(id string) (*lease.Lease, bool) {
	if l, ok := d.changed[id]; ok {
		return l, l != nil
	}
	l, ok := d.base.all[id]
	return l, ok
}

func (d *draft) open(l lease.Lease, max lease.Limits) error {
	if _, ok := d.read(l.ID); ok {
		return fmt.Errorf("%w: lease %s is there already", lease.ErrUnavailable, l.ID)
	}
	if err := max.Check(d.total, d.base.target[l.Target]+d.target[l.Target], d.base.owner[l.Workload]+d.owner[l.Workload], l); err != nil {
		return err
	}
	fresh := copied(&l)
	d.changed[l.ID] = &fresh
	d.count(l, 1)
	return nil
}

// update has a lease changed, and returns it when it is written or removed.
func (d *draft) update(id string, change func(*lease.Lease) lease.Verdict) (lease.Lease, bool) {
	old, ok := d.read(id)
	if !ok {
		return lease.Lease{}, false
	}
	l := copied(old)
	switch change(&l) {
	case lease.Write:
		d.changed[id] = &l
	case lease.Remove:
		d.changed[id] = nil
		d.count(*old, -1)
	case lease.Leave:
		return lease.Lease{}, false
	}
	return copied(&l), true
}

func (d *draft) count(l lease.Lease, n int) {
	d.total += n
	d.target[l.Target] += n
	d.owner[l.Workload] += n
}
