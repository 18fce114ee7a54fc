package prebuild

import (
	"fmt"
	"strings"

	"vm-prebuild/testrun/suite"
)

// maxMatrixJobs is how many jobs GitHub runs for a matrix.
const maxMatrixJobs = 256

// Split distributes the tests over at most n shards, none of which is empty.
func Split(tests []PlannedTest, durations suite.Durations, n int) []suite.Shard {
	names := make([]string, len(tests))
	for i, t := range tests {
		names[i] = t.Name
	}
	return suite.Split(names, durations, min(n, len(tests)))
}

// GitHubMatrix is a matrix of GitHub Actions, as JSON.
type GitHubMatrix struct {
	Include []GitHubJob `json:"include"`
}

// GitHubJob is a job of a [GitHubMatrix].
type GitHubJob struct {
	Shard   int     `json:"shard"`
	Shards  int     `json:"shards"`
	Seconds float64 `json:"seconds"` // as in [suite.Shard]
	Tests   string  `json:"tests"`   // the arguments of run-vm-tests
}

// NewGitHubMatrix makes a matrix with a job for each shard. It checks the names
// of the tests, which end up in a shell's command line.
func NewGitHubMatrix(shards []suite.Shard) (*GitHubMatrix, error) {
	if len(shards) > maxMatrixJobs {
		return nil, fmt.Errorf("GitHub runs at most %d jobs of a matrix, not %d", maxMatrixJobs, len(shards))
	}
	var matrix GitHubMatrix
	for _, s := range shards {
		for _, name := range s.Tests {
			if err := suite.CheckName(name); err != nil {
				return nil, err
			}
		}
		matrix.Include = append(matrix.Include, GitHubJob{s.Number, s.Of, s.Seconds, strings.Join(s.Tests, " ")})
	}
	return &matrix, nil
}
