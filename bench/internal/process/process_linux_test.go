package process

import (
	"context"
	"os"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
)

func TestAProcessIsMeasuredAndStoppedWithItsChildren(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// A shell that ignores the first signal, and a child that is busy.
	p, err := Start("busy", t.TempDir(), os.Environ(), syscall.SIGKILL, "sh", "-c", `trap "" TERM; (while :; do :; done) & echo begun; wait`)
	if err != nil {
		t.Fatal(err)
	}
	var tree []int
	for range 500 {
		if tree, err = Tree(p.PID); err != nil {
			t.Fatal(err)
		}
		if len(tree) == 2 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if len(tree) != 2 || !slices.Contains(tree, p.PID) {
		t.Fatalf("the tree is %v", tree)
	}
	before, err := CPU(tree)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	after, err := CPU(tree)
	if err != nil || after <= before {
		t.Errorf("CPU %v, then %v, %v", before, after, err)
	}
	if rss, err := RSS(tree); err != nil || rss < 100<<10 {
		t.Errorf("%d bytes of memory, %v", rss, err)
	}
	if err := p.Running(); err != nil {
		t.Error(err)
	}
	p.Stop()
	if err := p.Running(); err == nil || p.LastLines() != "begun\n" {
		t.Errorf("after Stop: %v", err)
	}
	// It may still be there, dead, until its new parent takes notice.
	used, _ := CPU(tree[1:])
	time.Sleep(50 * time.Millisecond)
	if later, err := CPU(tree[1:]); err == nil && later != used {
		t.Error("the child still runs")
	}
}

func TestOutputEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if _, err := Output(ctx, "sleep", "60"); err == nil || time.Since(begun) > 10*time.Second {
		t.Errorf("%v after %v", err, time.Since(begun))
	}
}
