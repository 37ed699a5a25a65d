package segment_test

import (
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
