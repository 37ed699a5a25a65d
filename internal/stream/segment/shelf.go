package segment

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// shelf holds the segments of a directory, and knows which of them are needed.
type shelf struct {
	dir    string
	create func(path string) (file, error) // createFile but for tests

	mu       sync.Mutex
	segments map[uint32]*segmentFile // guarded by mu
	bytes    int64                   // guarded by mu; the sum of their sizes
	unlinked []string                // guarded by mu; files to remove
}

type segmentFile struct {
	number uint32
	path   string
	file   file
	size   int64 // guarded by shelf.mu
	refs   int   // guarded by shelf.mu; spans over it, and one while it is written
	graves int   // guarded by shelf.mu; those of the refs that are tombstones'
}

// span is the range of segments that a stream's records lie in, or a
// tombstone. Those in it are kept, even where they hold nothing of the stream.
// The shelf's mu guards it; it is stretched by who has the journal's turn only.
type span struct {
	first, last uint32 // zero: nothing written yet
	grave       bool
	released    bool // a straggler can't hold a segment any more
}

func segmentPath(dir string, number uint32) string {
	return filepath.Join(dir, fmt.Sprintf("%08d.seg", number))
}

// listSegments returns the numbers of a directory's segments, in order.
func listSegments(dir string) ([]uint32, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var numbers []uint32
	for _, entry := range entries {
		var n uint32
		if _, err := fmt.Sscanf(entry.Name(), "%d.seg", &n); err == nil && n > 0 &&
			filepath.Join(dir, entry.Name()) == segmentPath(dir, n) {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// add puts an open segment on the shelf.
func (s *shelf) add(number uint32, f file, size int64) *segmentFile {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := &segmentFile{number: number, path: segmentPath(s.dir, number), file: f, size: size}
	s.segments[number] = g
	s.bytes += size
	return g
}

// begin makes the segment of this number, with room for so many bytes set
// aside, or for fewer on a small disk; at least it returns how many.
func (s *shelf) begin(number uint32, room, atLeast int64) (*segmentFile, int64, error) {
	path := segmentPath(s.dir, number)
	f, err := s.create(path)
	if err != nil {
		return nil, 0, err
	}
	err = f.Allocate(room)
	for diskFull(err) && room/2 >= atLeast {
		room /= 2
		err = f.Allocate(room)
	}
	if err == nil {
		_, err = f.WriteAt(segmentHeader(number), 0)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close(), os.Remove(path))
	}
	g := s.add(number, f, segmentHeaderSize)
	s.hold(g)
	return g, room, nil
}

// grew notes a segment's new size.
func (s *shelf) grew(g *segmentFile, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes += size - g.size
	g.size = size
}

func (s *shelf) hold(g *segmentFile) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g.refs++
}

// letGo is hold's end.
func (s *shelf) letGo(g *segmentFile) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g.refs--
	s.dropUnused(g)
}

// stretch makes the span reach to a segment.
func (s *shelf) stretch(p *span, to uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.released {
		return
	}
	from := p.last + 1
	if p.first == 0 {
		p.first, from = to, to
	}
	p.last = to
	s.count(p, from, 1)
}

// adopt counts a span in that was read from the segments.
func (s *shelf) adopt(p *span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count(p, p.first, 1)
}

// dropAllUnused takes off what nothing was adopted in.
func (s *shelf) dropAllUnused() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.segments {
		s.dropUnused(g)
	}
}

// release gives a span back. Segments that nobody needs then leave the shelf.
func (s *shelf) release(p *span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !p.released && p.first != 0 {
		s.count(p, p.first, -1)
	}
	p.released = true
}

// count counts the span's segments from the given one on. The caller holds mu.
func (s *shelf) count(p *span, from uint32, by int) {
	for n := from; n <= p.last; n++ {
		g := s.segments[n]
		if g == nil {
			continue
		}
		g.refs += by
		if p.grave {
			g.graves += by
		}
		s.dropUnused(g)
	}
}

// dropUnused takes a segment off the shelf that nobody needs. The caller holds mu.
func (s *shelf) dropUnused(g *segmentFile) {
	if g.refs > 0 {
		return
	}
	delete(s.segments, g.number)
	s.bytes -= g.size
	g.file.Close()
	s.unlinked = append(s.unlinked, g.path)
}

// graveyard returns the number of a segment that only tombstones keep, and
// zero when there is none.
func (s *shelf) graveyard() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, g := range s.segments {
		if g.refs == g.graves {
			return n
		}
	}
	return 0
}

// over reports whether the span covers a segment.
func (s *shelf) over(p *span, number uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return p.first <= number && number <= p.last && !p.released
}

// sweep removes the files of segments that left the shelf.
func (s *shelf) sweep() error {
	s.mu.Lock()
	paths := s.unlinked
	s.unlinked = nil
	s.mu.Unlock()
	var failed []error
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// file returns an open segment's file, held until release is called.
func (s *shelf) file(number uint32) (f file, release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.segments[number]
	if g == nil {
		return nil, nil, fmt.Errorf("segment %d is not there any more", number)
	}
	g.refs++
	return g.file, func() { s.letGo(g) }, nil
}

// read returns a segment's bytes.
func (s *shelf) read(number uint32) ([]byte, error) {
	f, release, err := s.file(number)
	if err != nil {
		return nil, err
	}
	defer release()
	return io.ReadAll(io.NewSectionReader(f, 0, s.sizeOf(number)))
}

func (s *shelf) sizeOf(number uint32) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.segments[number]; g != nil {
		return g.size
	}
	return 0
}

// sync returns when the disk has what was written to a span's segments.
func (s *shelf) sync(p span) error {
	for n := p.first; n <= p.last; n++ {
		f, release, err := s.file(n)
		if err != nil {
			return err
		}
		err = f.Sync()
		release()
		if err != nil {
			return err
		}
	}
	return nil
}

// size is how many bytes the segments have.
func (s *shelf) size() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

func (s *shelf) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var failed []error
	for _, g := range s.segments {
		failed = append(failed, g.file.Close())
	}
	clear(s.segments)
	return errors.Join(failed...)
}

// syncDir makes a directory's new names last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if closeErr := d.Close(); err == nil {
		err = closeErr
	}
	if err != nil && strings.Contains(err.Error(), "invalid") {
		return nil // a system that does not sync directories
	}
	return err
}
