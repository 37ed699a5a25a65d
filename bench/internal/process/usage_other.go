//go:build !linux

package process

import (
	"errors"
	"syscall"
	"time"
)

var errLinuxOnly = errors.New("the benchmark reads /proc and runs on Linux only")

func attributes(syscall.Signal) *syscall.SysProcAttr { return nil }

func signalGroup(int, syscall.Signal) {}

// Tree returns an error: it reads /proc.
func Tree(int) ([]int, error) { return nil, errLinuxOnly }

// CPU returns an error.
func CPU([]int) (time.Duration, error) { return 0, errLinuxOnly }

// MachineCPU returns an error.
func MachineCPU() (time.Duration, error) { return 0, errLinuxOnly }

// RSS returns an error.
func RSS([]int) (int64, error) { return 0, errLinuxOnly }

// RaiseFileLimit returns an error.
func RaiseFileLimit(uint64) error { return errLinuxOnly }
