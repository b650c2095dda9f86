package gitlab

// claims are those of GitLab 18. Ids are JSON strings, truth values are the strings "true" and "false".
type claims struct {
	ProjectID            string   `json:"project_id"`
	NamespaceID          string   `json:"namespace_id"`
	JobProjectID         string   `json:"job_project_id"`
	ProjectPath          string   `json:"project_path"`
	NamespacePath        string   `json:"namespace_path"`
	ProjectVisibility    string   `json:"project_visibility"`
	UserID               string   `json:"user_id"`
	UserLogin            string   `json:"user_login"`
	UserAccessLevel      string   `json:"user_access_level"`
	PipelineID           string   `json:"pipeline_id"`
	PipelineSource       string   `json:"pipeline_source"`
	JobID                string   `json:"job_id"`
	Ref                  string   `json:"ref"`
	RefType              string   `json:"ref_type"`
	RefPath              string   `json:"ref_path"`
	Environment          string   `json:"environment"`
	EnvironmentAction    string   `json:"environment_action"`
	DeploymentTier       string   `json:"deployment_tier"`
	RunnerEnvironment    string   `json:"runner_environment"`
	SHA                  string   `json:"sha"`
	CIConfigRefURI       string   `json:"ci_config_ref_uri"`
	CIConfigSHA          string   `json:"ci_config_sha"`
	RefProtected         string   `json:"ref_protected"`
	EnvironmentProtected string   `json:"environment_protected"`
	RunnerID             *int64   `json:"runner_id"`
	GroupsDirect         []string `json:"groups_direct"`
	JobNamespaceID       string   `json:"job_namespace_id"`
}

// texts are the attributes of type string, each read from the claim of its name. An empty claim is absent.
var texts = []struct {
	name, doc string
	anchor    bool
	value     func(*claims) string
}{
	{"project_id", "Id of the project; never given again. A token where the code is another project's is refused.", true, func(c *claims) string { return c.ProjectID }},
	{"namespace_id", "Id of the group or user that the project is in; never given again.", true, func(c *claims) string { return c.NamespaceID }},
	{"job_project_id", "Id of the project that runs the job, equal to project_id; absent on older servers.", true, func(c *claims) string { return c.JobProjectID }},
	{"project_path", "Path of the project; can be renamed and taken by somebody else.", false, func(c *claims) string { return c.ProjectPath }},
	{"namespace_path", "Path of the group; can be renamed and taken by somebody else.", false, func(c *claims) string { return c.NamespacePath }},
	{"project_visibility", "public, internal or private.", false, func(c *claims) string { return c.ProjectVisibility }},
	{"user_id", "Id of who started the pipeline: immutable, but not whose code runs, so it is no anchor.", false, func(c *claims) string { return c.UserID }},
	{"user_login", "Login of who started the pipeline; can be renamed.", false, func(c *claims) string { return c.UserLogin }},
	{"user_access_level", "Role of that user in the project.", false, func(c *claims) string { return c.UserAccessLevel }},
	{"pipeline_id", "Id of the pipeline.", false, func(c *claims) string { return c.PipelineID }},
	{"pipeline_source", "What started it, such as push or merge_request_event.", false, func(c *claims) string { return c.PipelineSource }},
	{"job_id", "Id of the job.", false, func(c *claims) string { return c.JobID }},
	{"ref", "Branch or tag by name; whoever can push chooses it.", false, func(c *claims) string { return c.Ref }},
	{"ref_type", "branch or tag.", false, func(c *claims) string { return c.RefType }},
	{"ref_path", "The same in full, such as refs/heads/main.", false, func(c *claims) string { return c.RefPath }},
	{"environment", "Environment of the job, a name that the job chooses; protects only together with environment_protected.", false, func(c *claims) string { return c.Environment }},
	{"environment_action", "What the job does to the environment, such as start.", false, func(c *claims) string { return c.EnvironmentAction }},
	{"deployment_tier", "Tier of the environment, such as production.", false, func(c *claims) string { return c.DeploymentTier }},
	{"runner_environment", "gitlab-hosted or self-hosted.", false, func(c *claims) string { return c.RunnerEnvironment }},
	{"sha", "Commit that the job runs on; forks share commits.", false, func(c *claims) string { return c.SHA }},
	{"ci_config_ref_uri", "Top-level configuration file and its reference, not what it includes; absent when it is no file of the project.", false, func(c *claims) string { return c.CIConfigRefURI }},
	{"ci_config_sha", "Commit of that file.", false, func(c *claims) string { return c.CIConfigSHA }},
}
