package load

import (
	"context"
	"errors"
	"os"
	"time"

	"weir/bench/internal/histogram"
	"weir/bench/internal/netloop"
	"weir/bench/internal/process"
)

// Durations sums up a histogram.
type Durations struct{ P50, P99, P999, Max time.Duration }

func summary(h *histogram.Histogram) Durations {
	return Durations{h.Quantile(0.5), h.Quantile(0.99), h.Quantile(0.999), h.Max()}
}

// Result of a load.
type Result struct {
	Streams  int            // that were opened
	Failures map[string]int // streams by what was wrong with them
	Tokens   int            // all
	Late     int            // tokens that took longer than Late

	// In the window:
	Window    time.Duration
	Delivered int       // tokens
	Latency   Durations // from the upstream's sending to the client's reading
	// TargetCPU, SourceCPU and OwnCPU are what the target's processes, the
	// upstream's and the load's own have used.
	TargetCPU, SourceCPU, OwnCPU time.Duration
	// MachineCPU is the time that all CPUs were busy, with other work too.
	MachineCPU time.Duration

	// FirstToken is from the request's sending to the first token, without the time
	// that the upstream let it wait; of all streams that were started.
	FirstToken Durations
	// Lag is by how much the upstream was behind its own schedule, with all tokens.
	Lag Durations
	// RSSBefore and RSSAfter are the target's resident memory before the first
	// stream and at the end of the window; with Idle, when all are idle.
	RSSBefore, RSSAfter int64
}

// Failed returns how many streams did.
func (r Result) Failed() int {
	n := 0
	for _, of := range r.Failures {
		n += of
	}
	return n
}

// run is a load under way.
type run struct {
	Options
	loop    *netloop.Loop
	clients []*client
	conns   []*netloop.Conn
	open    int
	creator *client // of Readers

	start      int64 // Unix nanoseconds, as all times here
	begun      bool  // the window has
	ended      bool
	begin, end int64 // of the window
	targetTree []int
	sourceTree []int
	cpu        cpuTimes // at the window's begin
	latency    histogram.Histogram
	first      histogram.Histogram
	lag        histogram.Histogram
	result     Result
}

var errOver = errors.New("the load is over")

// Run puts the load on the target. It ends with ctx, or when the last stream has
// ended, or a while after it should have.
func Run(ctx context.Context, o Options) (Result, error) {
	r := &run{Options: o}
	r.result.Failures = map[string]int{}
	err := r.prepare()
	if err != nil {
		return r.result, err
	}
	if r.loop, err = netloop.New(time.Millisecond); err != nil {
		return r.result, err
	}
	r.start = r.clock()
	r.begin = r.start + int64(o.Ramp+o.Settle)
	r.end = r.begin + int64(o.Window)
	if err := r.loop.Run(ctx, r.tick); !errors.Is(err, errOver) {
		return r.result, errors.Join(err, ctx.Err())
	}
	r.result.Latency, r.result.FirstToken, r.result.Lag = summary(&r.latency), summary(&r.first), summary(&r.lag)
	return r.result, nil
}

// prepare finds the processes to measure.
func (r *run) prepare() (err error) {
	if err := r.Check(); err != nil {
		return err
	}
	if r.Process != 0 {
		if r.targetTree, err = process.Tree(r.Process); err != nil {
			return err
		}
		if r.result.RSSBefore, err = process.RSS(r.targetTree); err != nil {
			return err
		}
	}
	if r.Source != 0 {
		r.sourceTree, err = process.Tree(r.Source)
	}
	return err
}

func (r *run) clock() int64 { return time.Now().UnixNano() }

// tick is called every millisecond.
func (r *run) tick(now int64) error {
	if err := r.openDue(now); err != nil {
		return err
	}
	if r.Mode == Idle {
		return r.tickIdle(now)
	}
	if !r.begun && now >= r.begin {
		r.begun, r.begin = true, now
		var err error
		if r.cpu, err = r.readCPU(); err != nil {
			return err
		}
	}
	if r.begun && !r.ended && now >= r.end {
		r.ended, r.end = true, now
		if err := r.closeWindow(); err != nil {
			return err
		}
	}
	if !r.ended {
		return nil
	}
	if r.open > 0 && now < r.start+int64(r.Duration()+drainTime) {
		return nil
	}
	r.abandon("not over in time")
	return errOver
}

// tickIdle waits until every stream has had its token, and a while longer.
func (r *run) tickIdle(now int64) error {
	waiting := int(r.first.Count())+r.result.Failed() < r.Streams
	switch {
	case waiting && now > r.start+int64(r.Duration()+drainTime):
		r.abandon("no first token")
	case waiting:
		r.begin = max(r.begin, now+int64(r.Settle))
		return nil
	case now < r.begin:
		return nil
	}
	var err error
	r.result.RSSAfter, err = process.RSS(r.targetTree)
	if err != nil {
		return err
	}
	return errOver
}

// openDue opens the streams whose time has come.
func (r *run) openDue(now int64) error {
	if !r.creates() && r.creator == nil {
		plan := r.plan(0)
		r.creator = newClient(r, r.request(plan), plan.Tokens, true)
		return r.dial(r.creator)
	}
	due := r.Streams
	if since := now - r.start; since < int64(r.Ramp) {
		due = int(int64(r.Streams) * since / int64(r.Ramp))
	}
	for n := r.result.Streams; n < due; n++ {
		c, ok := r.next(time.Duration(now - r.start))
		if !ok {
			return nil
		}
		if err := r.dial(c); err != nil {
			return err
		}
		r.result.Streams++
	}
	return nil
}

// next returns the client of the next stream, or false while it cannot begin.
func (r *run) next(begun time.Duration) (*client, bool) {
	if r.creates() {
		plan := r.plan(begun)
		return newClient(r, r.request(plan), plan.Tokens, true), true
	}
	id := r.creator.response.Header("Weir-Stream-Id")
	if id == "" {
		return nil, false
	}
	return newClient(r, r.readRequest(id), r.creator.want, false), true
}

func (r *run) dial(c *client) error {
	conn, err := r.loop.Dial(r.From[len(r.clients)%len(r.From)], r.Target, c)
	if err != nil {
		return err
	}
	r.clients, r.conns = append(r.clients, c), append(r.conns, conn)
	r.open++
	return nil
}

// over is told when a stream has ended, and what was wrong with it.
func (r *run) over(c *client, err error) {
	if c.over {
		return
	}
	c.over = true
	r.open--
	if err != nil {
		r.result.Failures[err.Error()]++
	}
}

// abandon counts the streams that are still open as failed.
func (r *run) abandon(why string) {
	for i, c := range r.clients {
		if !c.over && !(r.Mode == Idle && c.tokens > 0) {
			r.conns[i].Close()
			r.over(c, errors.New(why))
		}
	}
	if missing := r.Streams - r.result.Streams; missing > 0 {
		r.result.Failures["never opened"] += missing
	}
}

func (r *run) firstToken(after int64) { r.first.Record(time.Duration(after)) }

// tokenKept is told how far behind its schedule the upstream sent a token.
func (r *run) tokenKept(behind int64) { r.lag.Record(time.Duration(behind)) }

// token is told of one that came while its reader was there.
func (r *run) token(sent, now int64) {
	r.delivered()
	took := time.Duration(now - sent)
	if took > Late {
		r.result.Late++
	}
	if r.begun && sent >= r.begin && (!r.ended || sent < r.end) {
		r.latency.Record(took)
	}
}

// delivered counts a token, also one that was in the log before its reader came.
func (r *run) delivered() {
	r.result.Tokens++
	if r.begun && !r.ended {
		r.result.Delivered++
	}
}

// cpuTimes are what was used up to a moment.
type cpuTimes struct{ target, source, own, machine time.Duration }

func (r *run) readCPU() (c cpuTimes, err error) {
	c.target, err = process.CPU(r.targetTree)
	if err == nil {
		c.source, err = process.CPU(r.sourceTree)
	}
	if err == nil {
		c.own, err = process.CPU([]int{os.Getpid()})
	}
	if err == nil {
		c.machine, err = process.MachineCPU()
	}
	return c, err
}

func (r *run) closeWindow() error {
	now, err := r.readCPU()
	if err != nil {
		return err
	}
	r.result.Window = time.Duration(r.end - r.begin)
	r.result.TargetCPU, r.result.SourceCPU = now.target-r.cpu.target, now.source-r.cpu.source
	r.result.OwnCPU, r.result.MachineCPU = now.own-r.cpu.own, now.machine-r.cpu.machine
	r.result.RSSAfter, err = process.RSS(r.targetTree)
	return err
}
