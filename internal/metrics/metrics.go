// Package metrics counts what Weir does, for Prometheus.
package metrics

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus" // the format that every monitoring system reads
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"weir/internal/stream"
)

// Metrics is told what happens and keeps the numbers. It implements
// stream.Observer.
type Metrics struct {
	registry   *prometheus.Registry
	started    *prometheus.CounterVec
	running    prometheus.Gauge
	ended      *prometheus.CounterVec
	events     prometheus.Counter
	readers    prometheus.Gauge
	resumes    prometheus.Counter
	firstToken *prometheus.HistogramVec
}

// New returns metrics that stand at zero. The version is exported beside them.
func New(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		started: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weir_streams_started_total", Help: "Generations started."}, []string{"provider"}),
		running: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "weir_streams_running", Help: "Generations running in this process."}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weir_streams_ended_total", Help: "Generations ended, by state and error code."}, []string{"provider", "state", "code"}),
		events: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "weir_events_total", Help: "Events of ended generations."}),
		readers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "weir_readers", Help: "Connections that read a stream."}),
		resumes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "weir_resumes_total", Help: "Readers that came with a cursor."}),
		firstToken: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "weir_time_to_first_token_seconds", Help: "From the start of a generation to its first token.",
			Buckets: []float64{.05, .1, .2, .3, .5, .75, 1, 1.5, 2, 3, 5, 10, 20, 60}}, []string{"provider"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "weir_build_info", Help: "1, with the version.", ConstLabels: prometheus.Labels{"version": version}})
	build.Set(1)
	m.registry.MustRegister(m.started, m.running, m.ended, m.events, m.readers, m.resumes, m.firstToken, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Handler serves the numbers.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Started implements stream.Observer.
func (m *Metrics) Started(meta stream.Meta) {
	m.started.WithLabelValues(meta.Provider).Inc()
	m.running.Inc()
}

// FirstToken implements stream.Observer.
func (m *Metrics) FirstToken(meta stream.Meta, after time.Duration) {
	m.firstToken.WithLabelValues(meta.Provider).Observe(after.Seconds())
}

// Ended implements stream.Observer.
func (m *Metrics) Ended(end stream.End) {
	m.running.Dec()
	m.events.Add(float64(end.Events))
	m.ended.WithLabelValues(end.Provider, string(end.State), code(end)).Inc()
}

// ownCodes are those that may become a label. An upstream's are its own to make
// up, and every new one would be a series for ever.
var ownCodes = map[string]bool{
	stream.CodeUpstreamUnauthorized: true, stream.CodeUpstreamUnreachable: true, stream.CodeUpstreamTruncated: true,
	stream.CodeUpstreamTimeout: true, stream.CodeUpstreamInvalid: true, stream.CodeUpstreamError: true,
	stream.CodeTooLarge: true, stream.CodeInterrupted: true, stream.CodeCancelled: true, stream.CodeInternal: true,
}

func code(end stream.End) string {
	switch {
	case end.Error == nil:
		return ""
	case ownCodes[end.Error.Code]:
		return end.Error.Code
	default:
		return stream.CodeUpstreamError
	}
}

// ReaderOpened counts a connection that reads a stream.
func (m *Metrics) ReaderOpened(resumed bool) {
	m.readers.Inc()
	if resumed {
		m.resumes.Inc()
	}
}

// ReaderClosed counts it out again.
func (m *Metrics) ReaderClosed() { m.readers.Dec() }
