package segment_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"weir/internal/stream"
	"weir/internal/stream/segment"
	"weir/internal/stream/storetest"
)

func TestDurable(t *testing.T) {
	for name, o := range map[string]segment.Options{
		"os": {}, "fsync": {Sync: true}, "small segments": {SegmentSize: 4 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			storetest.RunDurable(t, func(t *testing.T, s storetest.Options) storetest.Durable {
				o.Dir, o.Retention, o.Now = t.TempDir(), s.Retention, s.Now
				return &directory{t: t, options: o, open: map[stream.Log]bool{}}
			})
		})
	}
}

// directory is a place where one store after another has its streams.
type directory struct {
	t       *testing.T
	options segment.Options
	open    map[stream.Log]bool // by store, whether it is to be closed
}

func (d *directory) Open() stream.Log {
	s, err := segment.Open(d.options)
	if err != nil {
		d.t.Fatal(err)
	}
	d.open[s] = true
	d.t.Cleanup(func() {
		if d.open[s] {
			s.Close()
		}
	})
	return s
}

func (d *directory) Crash(log stream.Log) {
	d.open[log] = false
	log.(*segment.Store).Crash()
}

// With every write synced, a loss of power takes nothing that was acknowledged.
func TestPowerLoss(t *testing.T) {
	for round := range 20 {
		disk := segment.NewDisk(1 << 30)
		o := segment.Options{Dir: t.TempDir(), SegmentSize: 64 * kib, Sync: true}
		s := open(t, disk.Under(o))
		const streams = 20
		var ids [streams]string
		var acknowledged [streams]int
		var total atomic.Int32
		enough := make(chan struct{})
		var all sync.WaitGroup
		for i := range streams {
			var w stream.Writer
			ids[i], w = fill(t, s, "", 0)
			all.Go(func() {
				for w.Append(t.Context(), kibibyte()) == nil {
					acknowledged[i]++
					if total.Add(1) == int32(200+100*round) {
						close(enough)
					}
				}
			})
		}
		<-enough
		s.Crash()
		all.Wait()
		if err := disk.LosePower(); err != nil {
			t.Fatal(err)
		}
		s = open(t, o)
		for i, id := range ids {
			events := storetest.CheckLog(t, s, id)
			if got := len(events) - 1; got < acknowledged[i] {
				t.Errorf("round %d: %d events, of %d that were acknowledged", round, got, acknowledged[i])
			}
		}
	}
}

// Without the syncs it takes what it takes, and what is left is in order.
func TestPowerLossUnsynced(t *testing.T) {
	disk := segment.NewDisk(1 << 30)
	o := segment.Options{Dir: t.TempDir(), SegmentSize: 16 * kib}
	s := open(t, disk.Under(o))
	id, _ := fill(t, s, "", 100)
	s.Crash()
	if err := disk.LosePower(); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, o).Status(t.Context(), id); !errors.Is(err, stream.ErrNotFound) {
		t.Errorf("Status: %v: what did the syncs of the other test do, then?", err)
	}
}
