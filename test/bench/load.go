package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	warmRequests = 2                // sent on each connection before the window opens
	grace        = 10 * time.Second // how long an answer may be late before the window fails
	bodyShown    = 200              // bytes of an unexpected body that an error quotes
)

// sample is what one window of load measured.
type sample struct {
	Requests int           // good answers
	Wrong    int           // answers that were not a 200 with a token
	Elapsed  time.Duration // from opening the window to the last answer
	CPU      time.Duration // of the server, in the same span
	Client   time.Duration // CPU time of this process, in the same span
	Others   float64       // processor share used by everything else, in processors
	P50, P99 time.Duration
	Resident int64 // bytes, after the window
	First    error // the first wrong answer
}

// perSecond is the throughput.
func (s sample) perSecond() float64 {
	if s.Elapsed <= 0 {
		return 0
	}
	return float64(s.Requests) / s.Elapsed.Seconds()
}

// cpuPerRequest is the server's processor time for one good answer, in milliseconds.
func (s sample) cpuPerRequest() float64 {
	if s.Requests == 0 {
		return 0
	}
	return milliseconds(s.CPU) / float64(s.Requests)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// worker is one connection of the closed loop: it sends, waits for the whole answer, and sends again.
type worker struct {
	conn   net.Conn
	reader *bufio.Reader
	answer response
	server *server
	times  []time.Duration // of the good answers
	wrong  int
	first  error // the first wrong answer
}

// exchange sends one request and reads its answer. A wrong answer is errWrong; every other error is
// about the connection and ends the window.
func (w *worker) exchange() error {
	request := w.server.next()
	if _, err := w.conn.Write(request); err != nil {
		return err
	}
	if err := w.answer.read(w.reader); err != nil {
		return err
	}
	if w.answer.closes {
		return errors.New("the server closes the connection after an answer")
	}
	if w.answer.status != 200 || len(accessToken(w.answer.body)) == 0 {
		body := w.answer.body[:min(len(w.answer.body), bodyShown)]
		return &wrongAnswer{status: w.answer.status, body: string(body)}
	}
	return nil
}

// wrongAnswer is a complete response that is not a 200 with a token.
type wrongAnswer struct {
	status int
	body   string
}

func (e *wrongAnswer) Error() string { return fmt.Sprintf("status %d, body %.200s", e.status, e.body) }

// loop exchanges until stop is set. The request under way is finished, so that no work of the server falls
// outside the window.
func (w *worker) loop(stop *atomic.Bool) error {
	for !stop.Load() {
		start := time.Now()
		err := w.exchange()
		took := time.Since(start)
		var wrong *wrongAnswer
		switch {
		case err == nil:
			w.times = append(w.times, took)
		case errors.As(err, &wrong):
			w.wrong++
			if w.first == nil {
				w.first = err
			}
		default:
			return err
		}
	}
	return nil
}

// window puts load from conns connections on the server for the given time and measures it. Connections are
// open and warm before the clocks are read.
func window(ctx context.Context, s *server, conns int, length time.Duration) (sample, error) {
	workers := make([]*worker, 0, conns)
	defer func() {
		for _, w := range workers {
			w.conn.Close()
		}
	}()
	deadline := time.Now().Add(length + grace)
	for range conns {
		w, err := newWorker(ctx, s, deadline)
		if err != nil {
			return sample{}, err
		}
		workers = append(workers, w)
		for range warmRequests {
			if err := w.exchange(); err != nil && !errors.As(err, new(*wrongAnswer)) {
				return sample{}, err
			}
		}
	}

	var stop atomic.Bool
	var running sync.WaitGroup
	failed := make([]error, conns)
	before, err := readClocks(s.pid())
	if err != nil {
		return sample{}, err
	}
	for i, w := range workers {
		running.Go(func() { failed[i] = w.loop(&stop) })
	}
	select {
	case <-time.After(length):
	case <-ctx.Done():
	}
	stop.Store(true)
	running.Wait()
	after, err := readClocks(s.pid())
	if err != nil {
		return sample{}, err
	}
	if err := errors.Join(ctx.Err(), errors.Join(failed...)); err != nil {
		return sample{}, err
	}
	out := collect(workers, before, after)
	out.Resident, err = residentBytes(s.pid())
	return out, err
}

func newWorker(ctx context.Context, s *server, deadline time.Time) (*worker, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", s.addr)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(deadline); err != nil {
		conn.Close()
		return nil, err
	}
	return &worker{
		conn:   conn,
		reader: bufio.NewReaderSize(conn, 8<<10),
		server: s,
		times:  make([]time.Duration, 0, 1<<14),
	}, nil
}

// clocks are the readings at one end of a window.
type clocks struct {
	at                    time.Time
	server, client, every time.Duration // processor time
}

func readClocks(pid int) (clocks, error) {
	var c clocks
	var err error
	if c.every, err = machineBusy(); err != nil {
		return c, err
	}
	if c.client, err = processCPU(os.Getpid()); err != nil {
		return c, err
	}
	if c.server, err = processCPU(pid); err != nil {
		return c, err
	}
	c.at = time.Now()
	return c, nil
}

// collect turns what the workers saw into a sample.
func collect(workers []*worker, before, after clocks) sample {
	var out sample
	var times []time.Duration
	for _, w := range workers {
		times = append(times, w.times...)
		out.Wrong += w.wrong
		if out.First == nil {
			out.First = w.first
		}
	}
	slices.Sort(times)
	out.Requests = len(times)
	out.P50, out.P99 = percentile(times, 50), percentile(times, 99)
	out.Elapsed = after.at.Sub(before.at)
	out.CPU = after.server - before.server
	out.Client = after.client - before.client
	others := after.every - before.every - out.CPU - out.Client
	out.Others = max(0, others.Seconds()/out.Elapsed.Seconds())
	return out
}
