package compare

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"weir/bench/internal/load"
)

// report is the comparison in Markdown.
func (b *bench) report() string {
	var out strings.Builder
	if b.runs(relayScenario) || b.runs(readersScenario) || b.runs(idleScenario) {
		b.mainTable(&out)
		b.notes(&out)
	}
	if b.runs(holdScenario) {
		b.holdTable(&out)
	}
	return out.String()
}

func (b *bench) mainTable(out *strings.Builder) {
	lines := [][]string{{
		"", "CPU a token", "× nginx", "tokens/s", "first token p50", "latency p50", "p99", "p99.9", "added p99 × nginx",
		"memory a stream", "× nginx", "failed",
	}}
	if len(b.rows) == 0 { // of the idle scenario alone
		for _, t := range b.targets {
			if _, measured := b.idle[t.name]; measured {
				b.rows = append(b.rows, &row{name: t.name, target: t.name, mode: load.Chat})
			}
		}
	}
	for _, r := range b.rows {
		line := []string{r.name}
		line = append(line, b.cpuCells(r)...)
		line = append(line, b.latencyCells(r)...)
		line = append(line, b.memoryCells(r)...)
		lines = append(lines, append(line, b.failureCell(r)))
	}
	writeTable(out, lines)
}

const none = "–"

func (b *bench) cpuCells(r *row) []string {
	if len(r.rounds) == 0 {
		return []string{none, none, none}
	}
	speed := fmt.Sprintf("%.0f", overRounds(r, func(x load.Result) float64 { return float64(x.Delivered) / x.Window.Seconds() }))
	if r.target == directTarget {
		return []string{none, none, speed}
	}
	cost := fmt.Sprintf("%.1f µs", overRounds(r, cpu))
	nginx := b.row(nginxTarget, load.Chat)
	if nginx == nil || len(nginx.rounds) == 0 {
		return []string{cost, none, speed}
	}
	ratios := make([]float64, len(r.rounds))
	for i := range r.rounds {
		ratios[i] = cpu(r.rounds[i]) / cpu(nginx.rounds[i])
	}
	ratio := fmt.Sprintf("%.2f", median(ratios))
	if r != nginx {
		ratio += fmt.Sprintf(" (%.2f–%.2f)", slices.Min(ratios), slices.Max(ratios))
	}
	return []string{cost, ratio, speed}
}

func cpu(x load.Result) float64 { return each(x.TargetCPU, x) }

func (b *bench) latencyCells(r *row) []string {
	if len(r.rounds) == 0 {
		return []string{none, none, none, none, none}
	}
	first := b.addedCell(r, firstToken, time.Millisecond, "%.2f", "ms")
	if r.mode == load.Readers {
		first = none // a reader's first token is one from the log
	}
	cells := []string{first}
	for _, value := range []func(load.Result) time.Duration{p50, p99, p999} {
		cells = append(cells, b.addedCell(r, value, time.Microsecond, "%.0f", "µs"))
	}
	return append(cells, b.addedRatio(r))
}

func firstToken(x load.Result) time.Duration { return x.FirstToken.P50 }
func p50(x load.Result) time.Duration        { return x.Latency.P50 }
func p99(x load.Result) time.Duration        { return x.Latency.P99 }
func p999(x load.Result) time.Duration       { return x.Latency.P999 }

// addedCell shows a time, and what the target added to the upstream's own.
func (b *bench) addedCell(r *row, value func(load.Result) time.Duration, unit time.Duration, format, name string) string {
	inUnit := func(x load.Result) float64 { return float64(value(x)) / float64(unit) }
	cell := fmt.Sprintf(format, overRounds(r, inUnit))
	if r.target == directTarget || r.mode == load.Readers || !b.hasDirect() {
		return cell + " " + name
	}
	return fmt.Sprintf("%s (+"+format+") %s", cell, b.added(r, inUnit), name)
}

// added is the median of what the target added, each round against the upstream
// in the same round.
func (b *bench) added(r *row, value func(load.Result) float64) float64 {
	direct := b.row(directTarget, load.Chat)
	more := make([]float64, len(r.rounds))
	for i := range r.rounds {
		more[i] = value(r.rounds[i]) - value(direct.rounds[i])
	}
	return max(0, median(more)) // below zero is noise
}

func (b *bench) hasDirect() bool { return b.row(directTarget, load.Chat) != nil }

func (b *bench) addedRatio(r *row) string {
	nginx := b.row(nginxTarget, load.Chat)
	if r.target == directTarget || r.mode == load.Readers || nginx == nil || !b.hasDirect() {
		return none
	}
	inSeconds := func(x load.Result) float64 { return p99(x).Seconds() }
	reference := b.added(nginx, inSeconds)
	if reference <= 0 {
		return none
	}
	return fmt.Sprintf("%.2f", b.added(r, inSeconds)/reference)
}

func (b *bench) memoryCells(r *row) []string {
	x, measured := b.idle[r.target]
	if !measured || r.mode != load.Chat {
		return []string{none, none}
	}
	cells := []string{fmt.Sprintf("%.1f KiB", memory(x)), none}
	if nginx, ok := b.idle[nginxTarget]; ok && memory(nginx) > 0 {
		cells[1] = fmt.Sprintf("%.2f", memory(x)/memory(nginx))
	}
	return cells
}

func (b *bench) failureCell(r *row) string {
	streams, failed, late := 0, 0, 0
	all := r.rounds
	if x, measured := b.idle[r.target]; measured && r.mode == load.Chat {
		all = append(slices.Clone(all), x)
	}
	for _, x := range all {
		streams, failed, late = streams+x.Streams, failed+x.Failed(), late+x.Late
	}
	cell := fmt.Sprintf("%d of %d", failed, streams)
	if late > 0 {
		cell += fmt.Sprintf(", %d tokens late", late)
	}
	return cell
}

// notes say under what circumstances the table came to be.
func (b *bench) notes(out *strings.Builder) {
	fmt.Fprintf(out, "\nMedians of %d rounds, %s. %s.\n", b.Rounds, b.loads(), b.machine())
	if many, one := b.row(memoryTarget, load.Readers), b.row(memoryTarget, load.Native); many != nil && one != nil {
		ratios := make([]float64, len(many.rounds))
		for i := range many.rounds {
			ratios[i] = cpu(many.rounds[i]) / cpu(one.rounds[i])
		}
		fmt.Fprintf(out, "A token for one of %d readers of a stream costs %.2f (%.2f–%.2f) of one for a stream's only reader.\n",
			b.Readers, median(ratios), slices.Min(ratios), slices.Max(ratios))
	}
	var source, own, lag, other []float64
	for _, r := range b.rows {
		for _, x := range r.rounds {
			other = append(other, others(x))
			if r.mode != load.Readers {
				source, own = append(source, each(x.SourceCPU, x)), append(own, each(x.OwnCPU, x))
				lag = append(lag, float64(x.Lag.P99)/float64(time.Millisecond))
			}
		}
	}
	if len(source) > 0 {
		fmt.Fprintf(out, "A token cost the upstream %.1f µs of CPU and the load generator %.1f µs; the upstream was %.1f ms behind its schedule at p99, %.1f ms in the worst round. ",
			median(source), median(own), median(lag), slices.Max(lag))
		fmt.Fprintf(out, "Other work had %.2f cores of the machine, %.2f in the worst round.\n", median(other), slices.Max(other))
	}
}

// loads describes what was put on the targets.
func (b *bench) loads() string {
	var parts []string
	if b.runs(relayScenario) {
		parts = append(parts, fmt.Sprintf("%d streams of %.0f tokens a second, measured for %v", b.Streams, float64(time.Second)/float64(b.Gap), b.Window))
	}
	if b.runs(readersScenario) {
		parts = append(parts, fmt.Sprintf("%d readers of a stream of %.0f tokens a second", b.Readers, float64(time.Second)/float64(b.ReaderGap)))
	}
	if b.runs(idleScenario) {
		parts = append(parts, fmt.Sprintf("memory with %d streams idle after a token, once", b.Idle))
	}
	return strings.Join(parts, "; ")
}

// machine says where it ran.
func (b *bench) machine() string {
	model := "an unknown processor"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, rest, ok := strings.Cut(string(info), "model name"); ok {
			line, _, _ := strings.Cut(rest, "\n")
			model = strings.TrimSpace(strings.TrimLeft(line, "\t :"))
		}
	}
	return fmt.Sprintf("%d cores of %s, %s", runtime.NumCPU(), model, versions(b.ctx))
}

func (b *bench) holdTable(out *strings.Builder) {
	lines := [][]string{{"", "streams", "failed", "tokens", "late by 1 s", "latency p50", "p99", "longest", "CPU a token", "memory a stream"}}
	for _, t := range b.targets {
		x, measured := b.held[t.name]
		if !measured {
			continue
		}
		lines = append(lines, []string{
			t.name, fmt.Sprint(x.Streams), fmt.Sprint(x.Failed()), fmt.Sprint(x.Tokens), fmt.Sprint(x.Late),
			round(x.Latency.P50), round(x.Latency.P99), round(x.Latency.Max),
			fmt.Sprintf("%.1f µs", cpu(x)), fmt.Sprintf("%.1f KiB", memory(x)),
		})
	}
	fmt.Fprintf(out, "\n%d streams of one token a second for %v:\n\n", b.HoldStreams, b.Hold)
	writeTable(out, lines)
}

func round(d time.Duration) string {
	if d < 10*time.Millisecond {
		return fmt.Sprintf("%.2f ms", d.Seconds()*1000)
	}
	return fmt.Sprintf("%.0f ms", d.Seconds()*1000)
}

func (b *bench) row(target string, mode load.Mode) *row {
	for _, r := range b.rows {
		if r.target == target && r.mode == mode {
			return r
		}
	}
	return nil
}

func overRounds(r *row, value func(load.Result) float64) float64 {
	values := make([]float64, len(r.rounds))
	for i, x := range r.rounds {
		values[i] = value(x)
	}
	return median(values)
}

func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// writeTable writes Markdown that reads as a table in a terminal, too.
func writeTable(out *strings.Builder, lines [][]string) {
	widths := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell), 3)
		}
	}
	for n, line := range lines {
		for i, cell := range line {
			fmt.Fprintf(out, "| %-*s ", widths[i], cell)
		}
		out.WriteString("|\n")
		if n == 0 {
			for _, w := range widths {
				out.WriteString("|" + strings.Repeat("-", w+2))
			}
			out.WriteString("|\n")
		}
	}
}
