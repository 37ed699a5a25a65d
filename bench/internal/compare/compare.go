package compare

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"weir/bench/internal/load"
	"weir/bench/internal/process"
)

// bench is a comparison under way.
type bench struct {
	*Options
	ctx      context.Context
	dir      string
	self     string // this program
	weir     string // its binary; empty until it is built
	targets  []*target
	upstream *process.Process
	rows     []*row
	idle     map[string]load.Result // by target
	held     map[string]load.Result
}

// row is one line of the table: a target under a kind of load.
type row struct {
	name   string
	target string
	mode   load.Mode
	extra  bool          // only when it is asked for
	rounds []load.Result // in order
}

func allRows() []*row {
	return []*row{
		{name: directTarget, target: directTarget, mode: load.Chat},
		{name: nginxTarget, target: nginxTarget, mode: load.Chat},
		{name: passthroughTarget, target: passthroughTarget, mode: load.Chat},
		{name: memoryTarget, target: memoryTarget, mode: load.Chat},
		{name: memoryTarget + " with ids", target: memoryTarget, mode: load.IDs, extra: true},
		{name: memoryTarget + " native", target: memoryTarget, mode: load.Native},
		{name: diskTarget, target: diskTarget, mode: load.Chat},
		{name: diskTarget + " with ids", target: diskTarget, mode: load.IDs, extra: true},
		{name: diskTarget + " native", target: diskTarget, mode: load.Native},
		{name: memoryTarget + " many readers", target: memoryTarget, mode: load.Readers},
		{name: diskTarget + " many readers", target: diskTarget, mode: load.Readers, extra: true},
	}
}

// Run makes the comparison and prints its table.
func Run(ctx context.Context, o *Options, out io.Writer) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	runtime.LockOSThread() // the children end with the thread that started them
	defer runtime.UnlockOSThread()
	ctx, cancel := context.WithTimeout(ctx, o.atMost())
	defer cancel()
	b := &bench{Options: o, ctx: ctx, weir: o.Weir, idle: map[string]load.Result{}, held: map[string]load.Result{}}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "weir-bench"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	defer b.stopAll()
	if err := b.measure(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return fmt.Errorf("ended early: %w", cause) // what it was doing then is no matter
		}
		return err
	}
	report := b.report()
	if o.Markdown != "" {
		if err := os.WriteFile(o.Markdown, []byte(report), 0o644); err != nil {
			return err
		}
	}
	_, err = io.WriteString(out, report)
	return err
}

// atMost is twice what a comparison should take.
func (o *Options) atMost() time.Duration {
	round := time.Duration(len(allRows())) * (o.Window + 3*time.Second)
	return 2*(time.Duration(o.Rounds)*round+3*time.Minute) + 10*o.Hold
}

func (b *bench) stopAll() {
	for _, t := range b.targets {
		b.down(t)
	}
	if b.upstream != nil {
		b.upstream.Stop()
	}
}

func (b *bench) measure() (err error) {
	b.chooseRows()
	if err := b.newTargets(); err != nil {
		return err
	}
	if b.upstream, err = b.startUpstream(); err != nil {
		return err
	}
	for round := range b.Rounds {
		if err := b.round(round); err != nil {
			return err
		}
	}
	for _, t := range b.targets {
		b.down(t) // memory is measured in a process that has done nothing else
	}
	if b.runs(idleScenario) {
		if err := b.eachTarget(b.idle, b.idleLoad()); err != nil {
			return err
		}
	}
	if b.runs(holdScenario) {
		return b.eachTarget(b.held, b.holdLoad())
	}
	return nil
}

// chooseRows keeps the rows of the scenarios and targets that were asked for,
// and what they are compared with.
func (b *bench) chooseRows() {
	_, noNginx := nginxPath()
	if noNginx != nil {
		progress("%v: the table goes without it", noNginx)
	}
	for _, r := range allRows() {
		scenario := relayScenario
		if r.mode == load.Readers {
			scenario = readersScenario
		}
		reference := r.target == directTarget || r.target == nginxTarget
		switch {
		case !b.runs(scenario), r.target == nginxTarget && noNginx != nil:
		case r.extra && b.Targets == "", !reference && !b.asked(r.name):
		default:
			b.rows = append(b.rows, r)
		}
	}
}

// asked reports whether a name has one of the parts that -targets names.
func (b *bench) asked(name string) bool {
	for part := range strings.SplitSeq(b.Targets, ",") {
		if strings.Contains(strings.ToLower(name), strings.ToLower(strings.TrimSpace(part))) {
			return true
		}
	}
	return false
}

// round puts the load on every row once, each round beginning with another: what
// comes first, or after a certain other, has no advantage in the end.
func (b *bench) round(n int) error {
	for i := range b.rows {
		r := b.rows[(i+n)%len(b.rows)]
		t := b.target(r.target)
		if err := b.up(t); err != nil {
			return err
		}
		result, err := b.load(t, b.options(r.mode))
		if err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		r.rounds = append(r.rounds, result)
		progress("round %d of %d, %s: %s", n+1, b.Rounds, r.name, inShort(result))
	}
	return nil
}

// options are those of a row's load.
func (b *bench) options(mode load.Mode) load.Options {
	o := load.Options{
		Mode: mode, Streams: b.Streams, Gap: b.Gap,
		Ramp: time.Second, Settle: 300 * time.Millisecond, Window: b.Window,
	}
	if mode == load.Readers {
		o.Streams, o.Gap = b.Readers, b.ReaderGap
	}
	if b.Quick {
		o.Ramp, o.Settle = 400*time.Millisecond, 200*time.Millisecond
	}
	return o
}

// How many streams are opened a second where the opening is not what is measured.
// While tokens flow it must leave room for them.
const (
	idleRate = 1500
	holdRate = 600
)

func (b *bench) idleLoad() load.Options {
	o := load.Options{
		Mode: load.Idle, Streams: b.Idle, Gap: time.Second, Window: time.Second,
		Ramp: time.Second * time.Duration(b.Idle) / idleRate, Settle: 2 * time.Second,
	}
	if b.Quick {
		o.Settle = 500 * time.Millisecond
	}
	return o
}

func (b *bench) holdLoad() load.Options {
	return load.Options{
		Mode: load.Chat, Streams: b.HoldStreams, Gap: time.Second, Window: b.Hold,
		Ramp: time.Second * time.Duration(b.HoldStreams) / holdRate, Settle: time.Second,
	}
}

// eachTarget puts a load on a fresh process of every target.
func (b *bench) eachTarget(results map[string]load.Result, o load.Options) error {
	for _, t := range b.targets {
		if _, err := nginxPath(); t.start == nil || (t.name == nginxTarget && err != nil) ||
			(t.name != nginxTarget && !b.asked(t.name)) {
			continue
		}
		if err := b.up(t); err != nil {
			return err
		}
		warm := b.options(load.Chat)
		warm.Streams, warm.Window = 20, 300*time.Millisecond
		_, err := b.load(t, warm)
		if err == nil {
			results[t.name], err = b.load(t, o)
		}
		b.down(t)
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		progress("%s, %d streams: %s", t.name, o.Streams, inShort(results[t.name]))
	}
	return nil
}

// load puts a load on a target, from a process of its own.
func (b *bench) load(t *target, o load.Options) (load.Result, error) {
	const grace = 20 * time.Second // it ends itself before that
	ctx, cancel := context.WithTimeout(b.ctx, o.Duration()+grace)
	defer cancel()
	args := []string{"load", "-target", t.addr.String(), "-mode", string(o.Mode), "-streams", fmt.Sprint(o.Streams),
		"-gap", o.Gap.String(), "-ramp", o.Ramp.String(), "-settle", o.Settle.String(), "-window", o.Window.String(),
		"-pid", fmt.Sprint(t.pid()), "-upstream-pid", fmt.Sprint(b.upstream.PID)}
	var result load.Result
	out, err := process.Output(ctx, b.self, args...)
	for _, p := range []*process.Process{b.upstream, t.process} {
		if p != nil && err == nil {
			err = p.Running()
		}
	}
	if err != nil {
		return result, err
	}
	return result, json.Unmarshal(out, &result)
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }

// inShort is a result on one line.
func inShort(r load.Result) string {
	text := fmt.Sprintf("%d streams", r.Streams)
	if r.Delivered > 0 {
		text = fmt.Sprintf("%d tokens, %.1f µs of CPU each (upstream %.1f, load %.1f), p50 %v, p99 %v, first %v, upstream behind %v, others used %.2f cores",
			r.Delivered, each(r.TargetCPU, r), each(r.SourceCPU, r), each(r.OwnCPU, r),
			r.Latency.P50, r.Latency.P99, r.FirstToken.P50, r.Lag.P99, others(r))
	} else if r.Streams > 0 {
		text += fmt.Sprintf(", %.1f KiB each", memory(r))
	}
	if n := r.Failed(); n > 0 || r.Late > 0 {
		text += fmt.Sprintf(", %d failed, %d tokens late: %v", n, r.Late, failures(r))
	}
	return text
}

func failures(r load.Result) []string {
	var list []string
	for why, n := range r.Failures {
		list = append(list, fmt.Sprintf("%d × %s", n, why))
	}
	slices.Sort(list)
	return list
}

// each is a time for each token delivered in the window, in microseconds.
func each(d time.Duration, r load.Result) float64 {
	return float64(d) / float64(time.Microsecond) / float64(max(r.Delivered, 1))
}

// others is how many cores were busy with anything but the benchmark, about: the
// kernel counts a machine's time less exactly than a process's.
func others(r load.Result) float64 {
	return max(0, float64(r.MachineCPU-r.TargetCPU-r.SourceCPU-r.OwnCPU)/float64(max(r.Window, 1)))
}

// memory is what each stream has added to the target, in KiB.
func memory(r load.Result) float64 {
	return float64(r.RSSAfter-r.RSSBefore) / 1024 / float64(max(r.Streams, 1))
}
