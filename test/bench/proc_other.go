//go:build !linux

package main

import (
	"errors"
	"syscall"
	"time"
)

var errLinuxOnly = errors.New("the benchmark reads CPU clocks and /proc of Linux")

func processCPU(int) (time.Duration, error)  { return 0, errLinuxOnly }
func residentBytes(int) (int64, error)       { return 0, errLinuxOnly }
func machineBusy() (time.Duration, error)    { return 0, errLinuxOnly }
func loadAverage() (float64, error)          { return 0, errLinuxOnly }
func childAttr() (none *syscall.SysProcAttr) { return none }
