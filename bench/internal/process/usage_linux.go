package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func attributes(orphaned syscall.Signal) *syscall.SysProcAttr {
	// A group of its own: ^C reaches the benchmark only, which then stops its
	// children in order.
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: orphaned}
}

func signalGroup(pid int, s syscall.Signal) { syscall.Kill(-pid, s) }

// Tree returns a process and all that descend from it.
func Tree(pid int) ([]int, error) {
	children := map[int][]int{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it ended meanwhile
		}
		// "pid (name) state parent …", and a name may hold anything.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) < 2 {
			continue
		}
		if parent, err := strconv.Atoi(string(fields[1])); err == nil {
			children[parent] = append(children[parent], child)
		}
	}
	tree := []int{pid}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i]]...)
	}
	return tree, nil
}

// CPU returns the time that processes have spent on CPUs, in user space and in
// the kernel. It is the sum that /proc/PID/stat shows as utime and stime, from
// the processes' clocks, which count in nanoseconds rather than hundredths of a
// second.
func CPU(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		const schedClock = 2 // CPUCLOCK_SCHED of the kernel's posix-timers.h
		var ts unix.Timespec
		if err := unix.ClockGettime(int32(^pid<<3|schedClock), &ts); err != nil {
			return 0, fmt.Errorf("the CPU clock of process %d: %w", pid, err)
		}
		sum += time.Duration(ts.Nano())
	}
	return sum, nil
}

// MachineCPU returns the time that all CPUs of the machine were busy, or taken
// from it, since it started; in hundredths of a second.
func MachineCPU() (time.Duration, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	var user, nice, system, idle, wait, irq, softirq, steal int64
	if _, err := fmt.Sscanf(string(stat), "cpu %d %d %d %d %d %d %d %d",
		&user, &nice, &system, &idle, &wait, &irq, &softirq, &steal); err != nil {
		return 0, fmt.Errorf("/proc/stat: %w", err)
	}
	const tick = time.Second / 100 // USER_HZ
	return time.Duration(user+nice+system+irq+softirq+steal) * tick, nil
}

// RSS returns the resident memory of processes, in bytes.
func RSS(pids []int) (int64, error) {
	var sum int64
	for _, pid := range pids {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return 0, err
		}
		_, rest, ok := strings.Cut(string(status), "VmRSS:")
		var kib int64
		if _, err := fmt.Sscan(rest, &kib); !ok || err != nil {
			return 0, fmt.Errorf("no VmRSS of process %d", pid)
		}
		sum += kib << 10
	}
	return sum, nil
}

// RaiseFileLimit lets this process and its children open that many files, or as
// many as it may.
func RaiseFileLimit(files uint64) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("the limit of open files: %w", err)
	}
	if limit.Max < files && syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: files, Max: files}) == nil {
		return nil // only root may
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("the limit of open files: %w", err)
	}
	if limit.Max < files {
		return errors.New("only " + strconv.FormatUint(limit.Max, 10) + " files may be open")
	}
	return nil
}
