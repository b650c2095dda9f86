package minted

import (
	"context"
	"sync"
	"time"
)

// Fate is what can be said of a token with a good signature of ours.
type Fate int

// The fates.
const (
	Genuine   Fate = iota // it was minted here
	Undecided             // nobody has told of it, and somebody has not told of its time yet
	Missing               // nobody minted it, and everybody who could have has told of its time
	Forgotten             // nobody knows it, and nobody knows any more what was minted at its time
)

// Bounds of what is looked for later.
const (
	mostWaiting = 8192             // tokens; more are counted
	atOnce      = 16               // questions
	longestRest = 8 * time.Second  // between two looks at one token
	patience    = 10 * time.Minute // with one token
)

// Later looks for tokens until it can be said what became of them: what was minted elsewhere a moment ago nobody has told of
// yet. It is safe for concurrent use.
type Later struct {
	unsure func()
	asking chan struct{}

	mu      sync.Mutex
	waiting map[Token]struct{}
}

// NewLater returns a Later that calls unsure for every token that it cannot look for, because there are too many, or that it
// gives up on.
func NewLater(unsure func()) *Later {
	return &Later{unsure: unsure, asking: make(chan struct{}, atOnce), waiting: map[Token]struct{}{}}
}

// Look asks for a token, now and again and again, and calls missing when it is. It returns at once. A token that is being
// looked for already is not looked for twice.
func (l *Later) Look(t Token, ask func(context.Context) (Fate, error), missing func()) {
	l.mu.Lock()
	_, twice := l.waiting[t]
	full := len(l.waiting) >= mostWaiting
	if !twice && !full {
		l.waiting[t] = struct{}{}
	}
	l.mu.Unlock()
	switch {
	case twice:
	case full:
		l.unsure()
	default:
		go func() {
			defer func() {
				l.mu.Lock()
				delete(l.waiting, t)
				l.mu.Unlock()
			}()
			l.follow(ask, missing)
		}()
	}
}

func (l *Later) follow(ask func(context.Context) (Fate, error), missing func()) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for rest := time.Second; ctx.Err() == nil; rest = min(2*rest, longestRest) {
		l.asking <- struct{}{}
		fate, err := ask(ctx)
		<-l.asking
		switch {
		case err != nil || fate == Undecided:
			time.Sleep(rest)
		case fate == Missing:
			missing()
			return
		case fate == Forgotten:
			l.unsure()
			return
		default:
			return
		}
	}
	l.unsure()
}
