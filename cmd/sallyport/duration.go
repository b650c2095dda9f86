package main

import (
	"time"

	"github.com/spf13/pflag"

	"github.com/sallyport-sts/sallyport/sts/config"
)

// durationFlag is a flag that takes a duration as the configuration does: 90s, 12h, 7d.
type durationFlag time.Duration

func durationVar(f *pflag.FlagSet, to *time.Duration, name, usage string) {
	f.Var((*durationFlag)(to), name, usage)
}

func (s *durationFlag) String() string {
	if *s == 0 {
		return ""
	}
	return time.Duration(*s).String()
}

func (s *durationFlag) Set(text string) error {
	d, err := config.ParseDuration(text)
	*s = durationFlag(d)
	return err
}

// Type is the word that help shows.
func (*durationFlag) Type() string { return "duration" }
