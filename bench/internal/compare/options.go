// Package compare puts the same load on several proxies, in turns, and compares
// what it costs them.
package compare

import (
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// DefaultTick is how exact the upstream's times are unless told otherwise.
const DefaultTick = 200 * time.Microsecond

// Options of a comparison.
type Options struct {
	Rounds    int
	Scenarios string // comma separated
	Targets   string // comma separated; empty: all
	Quick     bool
	Tick      time.Duration

	Streams int
	Gap     time.Duration
	Window  time.Duration

	Readers   int
	ReaderGap time.Duration

	Idle int

	HoldStreams int
	Hold        time.Duration

	Weir     string // a binary; empty: built from the tree
	Markdown string // a file
}

// The scenarios.
const (
	relayScenario   = "relay"   // many streams, one reader each
	readersScenario = "readers" // one stream, many readers
	idleScenario    = "idle"    // many streams that say nothing
	holdScenario    = "hold"    // very many slow streams, for long
)

var scenarios = []string{relayScenario, readersScenario, idleScenario, holdScenario}

// Register defines the flags of a comparison.
func Register(flags *flag.FlagSet) *Options {
	o := &Options{}
	flags.IntVar(&o.Rounds, "rounds", 5, "rounds; the table has their medians")
	flags.StringVar(&o.Scenarios, "scenarios", "relay,readers,idle", "which of "+strings.Join(scenarios, ", "))
	flags.StringVar(&o.Targets, "targets", "", "which rows, by parts of their names, comma separated; all by default")
	flags.BoolVar(&o.Quick, "quick", false, "40 seconds instead of 4 minutes, for rough figures")
	flags.DurationVar(&o.Tick, "tick", DefaultTick, "what is due within one tick of the upstream's clock is sent together")
	flags.IntVar(&o.Streams, "streams", 200, "relay: streams")
	flags.DurationVar(&o.Gap, "gap", 20*time.Millisecond, "relay: between the tokens of a stream")
	flags.DurationVar(&o.Window, "window", 3*time.Second, "relay, readers: how long is measured in a round")
	flags.IntVar(&o.Readers, "readers", 1000, "readers: how many read the one stream")
	flags.DurationVar(&o.ReaderGap, "reader-gap", 50*time.Millisecond, "readers: between the tokens of the one stream")
	flags.IntVar(&o.Idle, "idle", 5000, "idle: streams")
	flags.IntVar(&o.HoldStreams, "hold-streams", 9000, "hold: streams of one token a second")
	flags.DurationVar(&o.Hold, "hold", time.Minute, "hold: how long they are watched")
	flags.StringVar(&o.Weir, "weir", "", "binary of Weir to measure; built from this tree by default")
	flags.StringVar(&o.Markdown, "o", "", "file for the table, in Markdown")
	return o
}

// check completes the options and reports what makes no sense.
func (o *Options) check() error {
	if o.Quick {
		o.Rounds = min(o.Rounds, 2)
		o.Window = min(o.Window, time.Second)
		o.Idle, o.Readers = min(o.Idle, 1000), min(o.Readers, 400)
	}
	for name := range strings.SplitSeq(o.Scenarios, ",") {
		if !slices.Contains(scenarios, name) {
			return fmt.Errorf("no scenario %q: %s", name, strings.Join(scenarios, ", "))
		}
	}
	if o.Weir != "" { // it is started in another directory
		path, err := filepath.Abs(o.Weir)
		if err != nil {
			return err
		}
		o.Weir = path
	}
	if o.Rounds < 1 || o.Streams < 1 || o.Readers < 1 || o.Idle < 1 || o.HoldStreams < 1 || o.Gap <= 0 || o.ReaderGap <= 0 || o.Tick <= 0 {
		return errors.New("counts and times must be above zero")
	}
	return nil
}

func (o *Options) runs(scenario string) bool {
	return slices.Contains(strings.Split(o.Scenarios, ","), scenario)
}
