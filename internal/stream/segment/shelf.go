package segment

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// shelf holds the segments of a directory, and knows which of them are needed.
type shelf struct {
	dir   string
	files files

	mu       sync.Mutex
	segments map[uint32]*segmentFile // guarded by mu
	settled  bool                    // guarded by mu; who needs which is known
	bytes    int64                   // guarded by mu; the sum of their sizes
	unlinked []string                // guarded by mu; files to remove
}

type segmentFile struct {
	number  uint32
	path    string
	file    file
	size    int64 // guarded by shelf.mu
	refs    int   // guarded by shelf.mu; spans over it, and holds
	held    int   // guarded by shelf.mu; those of the refs that are the journal's, and of who reads it
	graves  int   // guarded by shelf.mu; those that are tombstones'
	running int   // guarded by shelf.mu; those that are running streams'
}

func segmentPath(dir string, number uint32) string {
	return filepath.Join(dir, fmt.Sprintf("%08d.seg", number))
}

// maxSegment leaves room to count on from any segment that is there.
const maxSegment = 1 << 31

// listSegments returns the numbers of a directory's segments, in order.
func listSegments(dir string) ([]uint32, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var numbers []uint32
	for _, entry := range entries {
		var n uint32
		if _, err := fmt.Sscanf(entry.Name(), "%d.seg", &n); err == nil && n > 0 && n < maxSegment &&
			filepath.Join(dir, entry.Name()) == segmentPath(dir, n) {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// open puts a segment that is there on the shelf, and returns its bytes. Those
// that the disk does not give are zero, which no checksum takes for a record.
func (s *shelf) open(number uint32) ([]byte, error) {
	f, size, err := s.files.open(segmentPath(s.dir, number))
	if err != nil {
		return nil, err
	}
	s.add(number, f, size)
	return readAll(f, size), nil
}

func (s *shelf) add(number uint32, f file, size int64) *segmentFile {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := &segmentFile{number: number, path: segmentPath(s.dir, number), file: f, size: size}
	s.segments[number] = g
	s.bytes += size
	return g
}

// readAll reads a file, around the places where the disk fails.
func readAll(f io.ReaderAt, size int64) []byte {
	data := make([]byte, size)
	if _, err := f.ReadAt(data, 0); err == nil || errors.Is(err, io.EOF) {
		return data
	}
	const sector = 4 << 10
	for from := int64(0); from < size; from += sector {
		part := data[from:min(from+sector, size)]
		if _, err := f.ReadAt(part, from); err != nil && !errors.Is(err, io.EOF) {
			clear(part)
		}
	}
	return data
}

// begin makes the segment of this number, with room for so many bytes set
// aside, or for fewer on a small disk, though at least atLeast. It returns how
// many.
func (s *shelf) begin(number uint32, room, atLeast int64) (*segmentFile, int64, error) {
	path := segmentPath(s.dir, number)
	f, err := s.files.create(path)
	if err != nil {
		return nil, 0, err
	}
	room, err = allocateUpTo(f, 0, room, atLeast)
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

// allocateUpTo sets room for a file of this size aside: as much as asked for,
// or a half of it, or a quarter, but atLeast.
func allocateUpTo(f file, size, room, atLeast int64) (int64, error) {
	err := f.Allocate(room)
	for diskFull(err) && room/2 >= atLeast {
		// Some file systems keep what they found of the room before they gave up.
		if err := f.Truncate(size); err != nil {
			return 0, err
		}
		room /= 2
		err = f.Allocate(room)
	}
	return room, err
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
	g.held++
}

// letGo is hold's end.
func (s *shelf) letGo(g *segmentFile) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g.refs--
	g.held--
	s.dropUnused(g)
}

// errNoSegment is the error of a segment that is not there: nobody needs it any
// more, or it was lost.
var errNoSegment = fmt.Errorf("%w: its segment is not there", errDamaged)

// file returns an open segment's file, held until release is called.
func (s *shelf) file(number uint32) (f file, release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.segments[number]
	if g == nil {
		return nil, nil, fmt.Errorf("%w: %d", errNoSegment, number)
	}
	g.refs++
	g.held++
	return g.file, func() { s.letGo(g) }, nil
}

// read returns a segment's bytes.
func (s *shelf) read(number uint32) ([]byte, error) {
	f, release, err := s.file(number)
	if err != nil {
		return nil, err
	}
	defer release()
	s.mu.Lock()
	size := s.segments[number].size
	s.mu.Unlock()
	return readAll(f, size), nil
}

// sync returns when the disk has what was written to these segments.
func (s *shelf) sync(numbers []uint32) error {
	var failed []error
	for _, n := range numbers {
		f, release, err := s.file(n)
		if err != nil {
			continue
		}
		failed = append(failed, f.Sync())
		release()
	}
	return errors.Join(failed...)
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
			s.mu.Lock()
			s.unlinked = append(s.unlinked, path) // to be tried again
			s.mu.Unlock()
		}
	}
	return errors.Join(failed...)
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
